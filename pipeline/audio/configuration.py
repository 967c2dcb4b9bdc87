"""What is asked of recordings before they become utterances. Light: needs no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

DAMAGED = ("skip", "use")


@dataclass(frozen=True)
class ScreeningConfig:
    """What makes a recording unusable.

    Attributes:
        silence_rms: the RMS (full scale 1, constant offset removed) below which a recording is silent.
        max_clipped_fraction: of the samples, at most this much may be clipped.
        max_rejected_fraction: of the corpus, at most this much may be unusable before its preparation fails.
        damaged: what becomes of files that hold less than they promise: `skip` them, or `use` what lies before the
            damage. The manifest names them either way.
        min_sample_rate: in Hz; below, there is hardly any speech.
        max_sample_rate: in Hz; above, the header is wrong.
        max_hours: a longer recording is more likely a trap than speech.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {"max_sample_rate": 10**7, "max_hours": 10_000}

    silence_rms: float
    max_clipped_fraction: float
    max_rejected_fraction: float
    damaged: str
    min_sample_rate: int
    max_sample_rate: int
    max_hours: float

    def __post_init__(self) -> None:
        for name in ("silence_rms", "max_clipped_fraction", "max_rejected_fraction"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value <= 1:
                raise ValueError(f"data.screening.{name} must be a number between 0 and 1, not {value!r}.")
        for name in ("min_sample_rate", "max_sample_rate", "max_hours"):
            value = getattr(self, name)
            if not _is_number(value) or value <= 0:
                raise ValueError(f"data.screening.{name} must be a number above 0, not {value!r}.")
        if self.damaged not in DAMAGED:
            raise ValueError(f"data.screening.damaged must be `skip` or `use`, not {self.damaged!r}.")
        if self.min_sample_rate > self.max_sample_rate:
            raise ValueError("data.screening.min_sample_rate must be at most data.screening.max_sample_rate.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class SplitConfig:
    """How a corpus is split.

    Attributes:
        by: `file`, or `speaker` to keep all that one speaker says in one split.
        validation: the fraction of the files or speakers for validation.
        test: the fraction of the files or speakers for the test.
    """

    by: str
    validation: float
    test: float

    def __post_init__(self) -> None:
        if self.by not in ("file", "speaker"):
            raise ValueError(f"data.split.by must be `file` or `speaker`, not {self.by!r}.")
        for name in ("validation", "test"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or not 0 < value < 1:
                raise ValueError(f"data.split.{name} must be a number between 0 and 1, both excluded, not {value!r}.")
        if self.validation + self.test >= 1:
            raise ValueError("data.split.validation and data.split.test must leave something to train on; lower them.")


@dataclass(frozen=True)
class UtteranceConfig:
    """How long utterances are.

    Attributes:
        min_seconds: nothing shorter becomes an utterance.
        max_seconds: longer recordings are cut into equal pieces of at most this length.
        join_seconds: shorter recordings of one speaker are joined up to this length; None: none are joined.
        gap_seconds: the silence between joined recordings.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {"max_seconds": 3600, "gap_seconds": 60}

    min_seconds: float
    max_seconds: float
    join_seconds: float | None
    gap_seconds: float

    def __post_init__(self) -> None:
        for name in ("min_seconds", "max_seconds", "join_seconds", "gap_seconds"):
            value = getattr(self, name)
            if name == "join_seconds" and value is None:
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value < 0:
                raise ValueError(f"data.utterances.{name} must be a number of seconds, not {value!r}.")
        if not 0 < 2 * self.min_seconds <= self.max_seconds:
            raise ValueError(
                "data.utterances.min_seconds must be positive and at most half of data.utterances.max_seconds, "
                "so that halves of a cut recording are long enough."
            )
        if self.join_seconds is not None and not self.min_seconds <= self.join_seconds <= self.max_seconds:
            raise ValueError(
                "data.utterances.join_seconds must lie between data.utterances.min_seconds and "
                "data.utterances.max_seconds, or be null."
            )

    @property
    def min_recording_seconds(self) -> float:
        """The length from which a recording is of use: any at all where short ones are joined."""
        return self.min_seconds if self.join_seconds is None else 0.0
