"""Nested mappings, leaf by leaf."""

from collections.abc import Iterator, Mapping
from typing import Any

# What stands for the value of a name that a mapping does not have.
ABSENT = "absent"


def leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf under its dotted name: `{"model": {"n": 2}}` yields ("model.n", 2). An empty mapping is a leaf."""
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from leaves(value, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), values


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The values of both under each name in which they differ, by name; `ABSENT` for what only the other has."""
    pairs = {name: (a.get(name, ABSENT), b.get(name, ABSENT)) for name in sorted(a.keys() | b.keys())}
    return {name: (ours, theirs) for name, (ours, theirs) in pairs.items() if ours != theirs}
