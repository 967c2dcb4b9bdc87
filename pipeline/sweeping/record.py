"""What a sweep has been asked for, kept in its folder: the jobs by number, and what they are compared by."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.plumbing.files import read_json, write_json
from pipeline.sweeping.configuration import GOALS

RECORD = "sweep.json"


@dataclass
class SweepRecord:
    """The jobs of a sweep.

    Attributes:
        stage: the command that jobs run.
        objective: the figure that they are compared by.
        goal: `minimize` or `maximize`.
        jobs: the overrides of each, shared ones too, by number.
    """

    stage: str
    objective: str
    goal: str
    jobs: list[list[str]] = field(default_factory=list)

    @property
    def sign(self) -> int:
        """1 where a small objective is good, -1 where a large one is."""
        return 1 if self.goal == GOALS[0] else -1

    def number(self, overrides: Sequence[str]) -> int:
        """The number of the job that is asked for this, a new one where there was none."""
        known = [sorted(job) for job in self.jobs]
        if sorted(overrides) not in known:
            self.jobs.append(list(overrides))
            return len(self.jobs) - 1
        return known.index(sorted(overrides))

    def write(self, folder: Path) -> None:
        """Keep it in the sweep's folder."""
        write_json(folder / RECORD, asdict(self))


def read_record(folder: Path) -> SweepRecord | None:
    """The record of the sweep in a folder; None where there is none.

    Raises:
        ValueError: when the file is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return None
    try:
        return SweepRecord(**read_json(path))
    except TypeError as error:
        raise ValueError(f"{path} does not describe a sweep ({error}); give the sweep a new hydra.sweep.dir.") from None
