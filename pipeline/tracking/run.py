"""A run as a stage sees it."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import quote

from pipeline.plumbing.redaction import redacted_values
from pipeline.tracking.journal import Record
from pipeline.tracking.limits import DIGEST_LENGTH, flatten, valid_key, valid_tags
from pipeline.tracking.model_entry import ModelEntry

log = logging.getLogger(__name__)

OBJECTIVE = "sweep/objective"
# Records that lead to files.
OF_FILES = ("artifact", "model")
# How the note begins that a failed run adds to the error which it failed with.
FAILURE_NOTE = "Tracked as run"


class TrackedRun(Protocol):
    """A run under way: a context manager, whose end marks the run FINISHED, FAILED or KILLED.

    No method waits for the store. A file that was logged has to stay where it is until the run has ended.
    """

    @property
    def run_id(self) -> str | None:
        """The run's id; None without tracking."""

    def reference(self) -> dict[str, str | None]:
        """What leads back to the run: `run_id`, `experiment` and `tracking_uri`, without credentials."""

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Log settings; nested ones get dotted names. They never change: a resumed run keeps its first values."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers of one step. Infinities are logged as NaN, for a store draws them at 1.8e308."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Log one file, into a folder of the run's files."""

    def log_artifacts(self, path: Path, folder: str | None = None) -> None:
        """Log everything in a folder, into a folder of the run's files."""

    def log_dataset(
        self, name: str, digest: str, source: str, profile: str | None = None, context: str = "training"
    ) -> None:
        """Log which data the run used; `profile` is a JSON object of facts, such as their size."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; a tag that is set again changes."""

    def mirror_to_parent(self, metrics: Mapping[str, float]) -> None:
        """Log headline metrics on the parent run as well, if there is one; its state stays as it is."""

    def log_objective(self, value: float) -> None:
        """Log the value that a sweep compares its jobs by; the smallest is the best."""

    def log_model(self, entry: ModelEntry) -> None:
        """Log a model, as one that the training has made."""

    def log_evaluation(self, metrics: Mapping[str, float], digest: str, dataset: tuple[str, str]) -> None:
        """Log numbers of a model, told by its digest, on data, told by name and digest."""

    def describe(self, title: str, text: str) -> None:
        """Write a section of the training's description, in Markdown; one of this title is replaced."""

    def link(self, file: str) -> str:
        """Where MLflow's pages show a file of this run, relative to themselves; "" without tracking."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class NullRun:
    """A run that records nothing."""

    run_id: str | None = None

    def reference(self) -> dict[str, str | None]:
        """Return empty values: there is no run."""
        return {"run_id": None, "experiment": None, "tracking_uri": None}

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Do nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Do nothing."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Do nothing."""

    def log_artifacts(self, path: Path, folder: str | None = None) -> None:
        """Do nothing."""

    def log_dataset(
        self, name: str, digest: str, source: str, profile: str | None = None, context: str = "training"
    ) -> None:
        """Do nothing."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Do nothing."""

    def mirror_to_parent(self, metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def log_objective(self, value: float) -> None:
        """Do nothing."""

    def log_model(self, entry: ModelEntry) -> None:
        """Do nothing."""

    def log_evaluation(self, metrics: Mapping[str, float], digest: str, dataset: tuple[str, str]) -> None:
        """Do nothing."""

    def describe(self, title: str, text: str) -> None:
        """Do nothing."""

    def link(self, file: str) -> str:
        """Return "": there is no run."""
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


class RecordedRun:
    """A run whose every call becomes a record, handed to whoever delivers it.

    Args:
        reference: what leads back to the run.
        submit: takes a record, without waiting for the store.
        close: called after the last record.
        parent_run_id: the run that headline metrics are mirrored to.
        sweep: whether the parent sums up a sweep.
        experiment_id: of its experiment, for links.
    """

    def __init__(
        self,
        reference: Mapping[str, str],
        submit: Callable[[Record], None],
        close: Callable[[], object],
        parent_run_id: str | None = None,
        sweep: bool = False,
        experiment_id: str = "",
    ) -> None:
        self._reference = dict(reference)
        self._experiment_id = experiment_id
        self._submit = submit
        self._close = close
        self.parent_run_id = parent_run_id
        self._sweep = sweep
        self._odd_metrics: set[str] = set()

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._reference["run_id"]

    def reference(self) -> dict[str, str | None]:
        """Return what leads back to the run: `run_id`, `experiment` and `tracking_uri`, without credentials."""
        return dict(self._reference)

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Log settings under dotted names."""
        self._record("parameters", flatten(redacted_values(parameters)))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers of one step."""
        self._record("metrics", self._numbers(metrics), step)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Log one file."""
        self._record("artifact", {"path": str(Path(path).resolve()), "folder": folder})

    def log_artifacts(self, path: Path, folder: str | None = None) -> None:
        """Log everything in a folder."""
        self.log_artifact(path, folder)

    def log_dataset(
        self, name: str, digest: str, source: str, profile: str | None = None, context: str = "training"
    ) -> None:
        """Log which data the run used."""
        values = {"name": name, "digest": digest[:DIGEST_LENGTH], "source": source, "profile": profile}
        self._record("dataset", {**values, "context": context})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self._record("tags", valid_tags(tags))

    def mirror_to_parent(self, metrics: Mapping[str, float]) -> None:
        """Log headline metrics on the parent run as well."""
        if self.parent_run_id is not None:
            self._record("metrics", self._numbers(metrics), run_id=self.parent_run_id)

    def log_objective(self, value: float) -> None:
        """Log the value that a sweep compares its jobs by; on other runs it would mean nothing."""
        if self._sweep:
            self.log_metrics({OBJECTIVE: value})

    def log_model(self, entry: ModelEntry) -> None:
        """Log a model, as one that the training has made."""
        self._record("model", entry.to_values(), run_id=self._training)

    def log_evaluation(self, metrics: Mapping[str, float], digest: str, dataset: tuple[str, str]) -> None:
        """Log numbers of a model on data."""
        self._record("evaluation", {"metrics": self._numbers(metrics), "digest": digest, "dataset": dataset})

    def describe(self, title: str, text: str) -> None:
        """Write a section of the training's description."""
        self._record("note", {"title": title, "text": text}, run_id=self._training)

    def link(self, file: str) -> str:
        """Where MLflow's pages show a file of this run, relative to themselves."""
        return f"#/experiments/{self._experiment_id}/runs/{self.run_id}/artifacts/{quote(file)}"

    @property
    def _training(self) -> str:
        """The run of the training: this one, or the one that this stage belongs to."""
        return self.run_id if self.parent_run_id is None or self._sweep else self.parent_run_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Mark the run: FINISHED, KILLED when it was interrupted, FAILED with the error as the tag `failure`."""
        status = "FINISHED"
        if error is not None:
            # Lightning turns Ctrl-C, and the signal of a preempted job, into SystemExit.
            status = "KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED"
            self.set_tags({"failure": f"{type(error).__name__}: {error}"})
            error.add_note(f"{FAILURE_NOTE} {self.run_id}.")
        self._record("status", {"status": status})
        if self._sweep and self.parent_run_id is not None:
            self._record("sweep", {}, run_id=self.parent_run_id)
        self._close()

    def _record(self, kind: str, values: Mapping[str, Any], step: int | None = None, run_id: str | None = None) -> None:
        """Submit a record; this is the border where secrets are taken out. A path has to stay as it is to be found."""
        if values or kind == "sweep":
            shown = values if kind in OF_FILES else redacted_values(values)
            self._submit(Record(run_id or self.run_id, kind, int(time.time() * 1000), shown, step or 0))

    def _numbers(self, metrics: Mapping[str, float]) -> dict[str, float]:
        numbers = {}
        for name, value in metrics.items():
            number = float(value)
            if not math.isfinite(number):
                if name not in self._odd_metrics:
                    log.warning("The metric %s is %s; it is tracked as NaN.", name, number)
                self._odd_metrics.add(name)
                number = math.nan
            numbers[valid_key(name)] = number
        return numbers
