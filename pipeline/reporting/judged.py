"""What judges said of the sounds, and how long speech went, read from the evaluation's tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.plumbing.files import read_json
from pipeline.reporting.formatting import as_mapping
from pipeline.reporting.tables import read_number, read_rows


@dataclass(frozen=True)
class JudgedBody:
    """The mean figure of a body of sounds, between what it is known to lie, and how often real speech is preferred."""

    value: float
    low: float
    high: float
    separation: float


@dataclass(frozen=True)
class Heard:
    """What was said in a sound, as far as that is known, and what a judge heard."""

    signal: str
    number: int
    said: str
    heard: str


@dataclass(frozen=True)
class LongWindow:
    """A stretch of a long clip: whose, when it begins, its figures, and what it is."""

    signal: str
    number: int
    second: float
    flatness: float
    level_db: float
    repetition: float
    state: str


@dataclass(frozen=True)
class Judged:
    """Everything of it; whatever was not written is empty.

    Attributes:
        document: who judged and who did not, as it was written.
        bodies: {(judge, measure): {signal: figures}}.
        heard: sound by sound.
        windows: of long speech.
    """

    document: Mapping[str, Any] = field(default_factory=dict)
    bodies: Mapping[tuple[str, str], Mapping[str, JudgedBody]] = field(default_factory=dict)
    heard: tuple[Heard, ...] = ()
    windows: tuple[LongWindow, ...] = ()


def read_judged(folder: Path) -> Judged:
    """Read it from the folder of an evaluation.

    Raises:
        ValueError: naming the file and the place that cannot be.
    """
    path = folder / "judges.json"
    return Judged(
        document=as_mapping(read_json(path)) if path.exists() else {},
        bodies=_bodies(folder / "judge_bodies.csv"),
        heard=_heard(folder / "heard.csv"),
        windows=_windows(folder / "long_generation.csv"),
    )


def _bodies(path: Path) -> dict[tuple[str, str], dict[str, JudgedBody]]:
    columns = ("value", "low", "high", "separation")
    bodies: dict[tuple[str, str], dict[str, JudgedBody]] = {}
    for i, row in enumerate(read_rows(path, required=("judge", "measure", "signal", *columns))):
        figures = (read_number(path, i, column, row[column]) for column in columns)
        bodies.setdefault((row["judge"], row["measure"]), {})[row["signal"]] = JudgedBody(*figures)
    return bodies


def _heard(path: Path) -> tuple[Heard, ...]:
    rows = read_rows(path, required=("signal", "number", "said", "heard"))
    return tuple(
        Heard(row["signal"], int(read_number(path, i, "number", row["number"])), row["said"], row["heard"])
        for i, row in enumerate(rows)
    )


def _windows(path: Path) -> tuple[LongWindow, ...]:
    columns = ("second", "flatness", "level_db", "repetition")
    rows = read_rows(path, required=("signal", "number", *columns, "state"))
    return tuple(
        LongWindow(
            signal=row["signal"],
            number=int(read_number(path, i, "number", row["number"])),
            state=row["state"],
            **{column: read_number(path, i, column, row[column]) for column in columns},
        )
        for i, row in enumerate(rows)
    )
