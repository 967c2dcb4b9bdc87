"""Checks that the codecs' configurations share; their errors name the key."""

import math


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
