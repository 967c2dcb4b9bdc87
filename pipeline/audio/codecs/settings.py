"""From the `codec` configuration group to a codec's own dataclass, with errors that name the key."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

Config = TypeVar("Config")


def near_matches(name: str, known: list[str]) -> str:
    """Return a hint such as "did you mean `n_mels`?", or the full list when nothing is near."""
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(f"`{match}`" for match in near) + "?"
    return "known are " + ", ".join(f"`{option}`" for option in known) + "."


def read_settings(config_class: type[Config], options: Mapping[str, Any]) -> Config:
    """Build a configuration dataclass from `options`, which must name each of its fields and nothing else.

    Raises:
        ValueError: a field is unknown or missing (the message names `codec.<field>`), or a value is invalid.
    """
    names = [field.name for field in fields(config_class)]  # type: ignore[arg-type]
    missing = [name for name in names if name not in options]
    if unknown := [name for name in options if name not in names]:
        hint = near_matches(unknown[0], missing or names)
        raise ValueError(f"codec.{unknown[0]} is not a setting of this codec; {hint}")
    if missing:
        raise ValueError(f"codec.{missing[0]} is missing; the files under conf/codec show every setting.")
    return config_class(**options)


def require_integer(config: object, name: str, minimum: int, maximum: int | None = None) -> None:
    """Raise a ValueError unless the field is an integer of at least `minimum` and at most `maximum`."""
    value = getattr(config, name)
    bounds = f"at least {minimum}" if maximum is None else f"between {minimum} and {maximum}"
    integer = isinstance(value, int) and not isinstance(value, bool)
    if not integer or value < minimum or (maximum is not None and value > maximum):
        raise ValueError(f"codec.{name} must be an integer of {bounds}, not {value!r}.")


def require_number(config: object, name: str, minimum: float = -math.inf, maximum: float = math.inf) -> None:
    """Raise a ValueError unless the field is a finite number within the bounds, both included."""
    value = getattr(config, name)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not minimum <= value <= maximum:
        raise ValueError(f"codec.{name} must be a finite number between {minimum:g} and {maximum:g}, not {value!r}.")


def require_loudness(config: object) -> None:
    """Raise a ValueError unless `loudness_db` is a level that speech can have without clipping throughout."""
    require_number(config, "loudness_db", -70.0, 0.0)
