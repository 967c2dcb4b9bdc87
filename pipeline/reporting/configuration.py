"""The `report` group of the configuration. Light: needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class ReportConfig:
    """How the page is headed, and how many utterances of each kind can be heard on it."""

    LARGEST: ClassVar[Mapping[str, float]] = {"n_examples": 1000}

    title: str
    n_examples: int

    def __post_init__(self) -> None:
        if not self.title.strip():
            raise ValueError("report.title is empty; give the page a title.")
        if self.n_examples < 0:
            raise ValueError(f"report.n_examples is {self.n_examples}; set it to 0 or more.")
