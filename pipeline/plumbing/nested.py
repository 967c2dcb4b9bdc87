"""Nested mappings, leaf by leaf."""

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf under its dotted name: `{"model": {"n": 2}}` yields ("model.n", 2). An empty mapping is a leaf."""
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from leaves(value, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), values
