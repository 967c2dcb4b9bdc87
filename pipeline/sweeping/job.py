"""A job of a sweep that has ended, as its folder tells of it."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.plumbing.files import read_json, write_json

JOB, CONFIGURATION = "job.json", "config.yaml"
SEED = "seed"


@dataclass(frozen=True)
class Job:
    """A job that has ended.

    Attributes:
        number: its place in the sweep.
        overrides: what it was asked for that others were not, as `key=value`.
        folder: where its results lie.
        objective: what jobs are compared by; None of a stage that has none.
        failure: why it failed; empty if it did not.
        run_id: its tracked run, if it has one.
    """

    number: int
    overrides: tuple[str, ...]
    folder: str
    objective: float | None
    failure: str
    run_id: str | None

    def __str__(self) -> str:
        return f"Job {self.number} ({', '.join(self.overrides)})" if self.overrides else f"Job {self.number}"

    @property
    def configuration(self) -> tuple[str, ...]:
        """What it shares with the jobs that differ from it in their seed alone."""
        return without_seed(self.overrides)

    def write(self) -> None:
        """Keep it in its folder."""
        write_json(Path(self.folder, JOB), asdict(self))


def read_job(folder: Path) -> Job | None:
    """The job whose results lie in a folder; None where it has not ended.

    Raises:
        ValueError: when the file is none of a job.
    """
    path = folder / JOB
    if not path.is_file():
        return None
    try:
        values = read_json(path)
        # A sweep's folder may have been moved since.
        return Job(**{**values, "overrides": tuple(values["overrides"]), "folder": str(folder)})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} does not describe a job ({error}); delete it, and the job runs again.") from None


def read_jobs(sweep: Path) -> list[Job]:
    """The jobs of a sweep that have ended, by their numbers."""
    jobs = [read_job(path.parent) for path in sweep.glob(f"*/{JOB}")]
    return sorted((job for job in jobs if job), key=lambda job: job.number)


def without_seed(overrides: Iterable[str]) -> tuple[str, ...]:
    """Overrides but for the seed's."""
    return tuple(override for override in overrides if key_of(override) != SEED)


def key_of(override: str) -> str:
    """What an override sets: `data.root` of `+data.root=…`."""
    return re.sub(r"^(\+\+?|~)", "", override).partition("=")[0]
