"""From plain values to the dataclasses of the configuration, with errors that name the key."""

import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar

Settings = TypeVar("Settings")
LARGEST_SEED = 2**32 - 1


def near_matches(name: object, known: Sequence[str]) -> str:
    """A hint such as "did you mean `n_mels`?", or all that is known when nothing is near."""
    near = difflib.get_close_matches(str(name), known, n=3)
    if near:
        return "did you mean " + " or ".join(f"`{match}`" for match in near) + "?"
    return "known are " + ", ".join(f"`{option}`" for option in known) + "."


def read_settings(cls: type[Settings], values: Mapping[str, Any], key: str) -> Settings:
    """Build the dataclass `cls` from the values found under `key` of the configuration; "" stands for its top.

    Numbers have to be finite. A dataclass may name in `LARGEST` the greatest value of fields that cost time or memory:
    beyond lies a slip of the finger, which would otherwise be noticed when a machine has stood still for a day.

    Raises:
        ValueError: a field is unknown, missing, of another type or beyond its greatest value, or the dataclass refuses
            it; the message names `key.field`.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{key} is {values!r}; it takes a group of settings, as the files under conf/ show them.")
    prefix = f"{key}." if key else ""
    known: tuple[Field[Any], ...] = fields(cls)  # type: ignore[arg-type]
    names = [field.name for field in known]
    missing = [f.name for f in known if f.name not in values and f.default is MISSING and f.default_factory is MISSING]
    if unknown := [name for name in values if name not in names]:
        raise ValueError(f"{prefix}{unknown[0]} is not a setting; {near_matches(unknown[0], missing or names)}")
    if missing:
        raise ValueError(f"{prefix}{missing[0]} is not set; the files under conf/ show every setting.")
    annotations = typing.get_type_hints(cls)
    values = {name: _read_nested(annotations[name], value, f"{prefix}{name}") for name, value in values.items()}
    for name, value in values.items():
        if not _fits(value, annotations[name]):
            expected = getattr(annotations[name], "__name__", str(annotations[name]))
            raise ValueError(f"{prefix}{name} is {value!r}; it takes a value of type {expected}.")
        _check_size(value, f"{prefix}{name}", getattr(cls, "LARGEST", {}).get(name))
    try:
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except ValueError as error:
        if key in str(error):
            raise
        # A dataclass that is used elsewhere too does not know where in the configuration it stands.
        raise ValueError(f"{prefix}{error}") from None


def check_seed(key: str, seed: object) -> int:
    """The seed of random choices, once it is one.

    Raises:
        ValueError: naming the key.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"{key} is {seed!r}; it takes a whole number from 0 to {LARGEST_SEED}.")
    return seed


def _check_size(value: Any, name: str, largest: float | None) -> None:
    """Refuse numbers that are not finite, and those beyond what `name` may be."""
    for number in value if isinstance(value, list | tuple) else [value]:
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f"{name} is {number}; it takes a finite number.")
        if largest is not None and isinstance(number, int | float) and number > largest:
            raise ValueError(f"{name} is {number}; it may be at most {largest:,}.")
        if isinstance(number, int) and abs(number) >= 2**63:
            raise ValueError(f"{name} is a number of {len(str(abs(number)))} digits; no setting is that large.")


def _read_nested(annotation: Any, value: Any, key: str) -> Any:
    """Build the dataclass that `annotation` names, alone or as an alternative to None, where `value` describes one."""
    nested = [choice for choice in (annotation, *typing.get_args(annotation)) if is_dataclass(choice)]
    if not nested or not isinstance(value, Mapping):
        return value
    return read_settings(typing.cast(type[Any], nested[0]), value, key)


def _fits(value: Any, annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in typing.get_args(annotation))
    if origin in (tuple, list):
        kinds = typing.get_args(annotation)
        return isinstance(value, tuple | list) and all(_fits(element, kinds[0]) for element in value)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(annotation, type) or isinstance(value, annotation)


def check_known(key: str, value: object, known: tuple[str, ...]) -> None:
    """Raise a ValueError that names the key and what is near, unless a value is known."""
    if value not in known:
        raise ValueError(f"{key} is {value!r}; {near_matches(value, known)}")
