"""Checks that the corpora's configurations share; their errors name the key."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.configuration.settings import near_matches
from pipeline.plumbing.redaction import redacted


def existing_folder(root: str | Path) -> Path:
    """The folder of `data.root`; a relative one starts at the current directory.

    Raises:
        ValueError: it is missing, or no folder.
    """
    folder = Path(root).expanduser().absolute()
    if not folder.exists():
        raise ValueError(f"data.root={root}: {folder} does not exist; give the folder that holds the audio.")
    if not folder.is_dir():
        raise ValueError(f"data.root={root}: {folder} is not a folder; give the folder that holds the audio.")
    return folder


def require_root(root: object) -> None:
    """Raise a ValueError unless `data.root` is a path."""
    if not isinstance(root, str | Path) or not str(root):
        raise ValueError(f"data.root must be the path of a folder, not {root!r}.")


def require_locations(name: str, value: object) -> None:
    """Raise a ValueError unless `data.<name>` is a path, a pattern or a URL, or a list of them, without credentials."""
    locations: Sequence[Any] = value if isinstance(value, list | tuple) else [value]
    if not locations or not all(isinstance(location, str) and location for location in locations):
        raise ValueError(f"data.{name} must be a path, a pattern or a URL, or a list of them, not {value!r}.")
    for location in locations:
        if redacted(location) != location:
            raise ValueError(
                f"data.{name}={redacted(location)} carries credentials, which would be kept with the settings; leave "
                "them out, and give them in the environment."
            )


def require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise a ValueError unless the value of `data.<name>` is one of the choices."""
    if value not in choices:
        raise ValueError(f"data.{name}={value} is not possible; {near_matches(value, choices)}")


def require_boolean(name: str, value: object) -> None:
    """Raise a ValueError unless the value of `data.<name>` is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"data.{name} must be true or false, not {value!r}.")


def require_positive(name: str, value: object) -> None:
    """Raise a ValueError unless the value of `data.<name>` is a finite number above 0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:  # type: ignore[arg-type, operator]
        raise ValueError(f"data.{name} must be a number above 0, not {value!r}.")


def require_range(name: str, value: object, minimum: int, maximum: int) -> tuple[int, int]:
    """The value of `data.<name>` as (low, high); a ValueError unless both are integers in order and within bounds."""
    pair = tuple(value) if isinstance(value, list | tuple) else ()
    whole = len(pair) == 2 and all(isinstance(end, int) and not isinstance(end, bool) for end in pair)
    if not whole or not minimum <= pair[0] <= pair[1] <= maximum:
        raise ValueError(
            f"data.{name} must be two integers [low, high] between {minimum} and {maximum}, not {value!r}."
        )
    return pair[0], pair[1]
