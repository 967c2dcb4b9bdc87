"""What a check of a conversion comes to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PASS, WARN, FAIL, SKIPPED = "pass", "warn", "fail", "skipped"


@dataclass(frozen=True)
class Check:
    """One question that was asked of a conversion.

    Attributes:
        name: what was looked at, in a word or two.
        status: `PASS`, `WARN`, `FAIL`, or `SKIPPED` where what it needs does not exist.
        sentence: what was found, or why nothing was looked at; no full stop.
        numbers: what it was decided by.
    """

    name: str
    status: str
    sentence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


def listed(names: list[str], n_shown: int = 4) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - n_shown} more" if len(names) > n_shown else ""
    return ", ".join(names[:n_shown]) + more
