"""The MLflow store: reached or refused at once, and asked through explicit run ids only."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from pipeline.plumbing.process import Process
from pipeline.plumbing.redaction import redacted
from pipeline.tracking.config import TrackingConfig, artifact_location, store_uri
from pipeline.tracking.database import keep_mlflow_silent
from pipeline.tracking.reachability import check_reachable, use_http_defaults

log = logging.getLogger(__name__)

PARENT_TAG = "mlflow.parentRunId"
PROCESS_TAG = "melisma.process"
HOST_TAG = "melisma.host"
STAGE_TAG = "melisma.stage"
ALIVE_TAG = "melisma.alive"
FAILURE_TAG = "failure"
# Seconds between signs of life, and without any of them until a run counts as dead.
HEARTBEAT = 60.0
SILENCE = 900.0


class StoreUnavailableError(ConnectionError):
    """The tracking store cannot be used; the message says which one and what to do."""


class Store:
    """An MLflow store that has answered.

    Attributes:
        uri: the tracking URI.
        client: MLflow's client for it.
    """

    def __init__(self, uri: str) -> None:
        use_http_defaults()
        keep_mlflow_silent()
        self.uri = uri
        self.client = MlflowClient(tracking_uri=uri)

    @property
    def name(self) -> str:
        """The URI as it may be shown."""
        return redacted(self.uri)

    @property
    def is_remote(self) -> bool:
        """Whether a server is asked, and no database."""
        return self.uri.startswith(("http", "databricks"))

    def run(self, run_id: str) -> Run | None:
        """The run, or None where the store has none of this id, or only a deleted one."""
        run = self._any_run(run_id)
        return run if run and run.info.lifecycle_stage == "active" else None

    def has_deleted(self, run_id: str) -> bool:
        """Whether the store has a run of this id that was deleted, and can be restored."""
        run = self._any_run(run_id)
        return run is not None and run.info.lifecycle_stage == "deleted"

    def _any_run(self, run_id: str) -> Run | None:
        try:
            return self.client.get_run(run_id)
        except MlflowException as error:
            # What cannot be an id is none that the store has.
            if error.error_code in (ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE)):
                return None
            raise

    def newest(self, experiment_id: str, stage: str, tags: Mapping[str, str]) -> Run | None:
        """The newest finished run of a stage that carries all these tags; None where there is none."""
        conditions = [f"tags.`{name}` = '{value}'" for name, value in {STAGE_TAG: stage, **tags}.items()]
        conditions.append("attributes.status = 'FINISHED'")
        found = self.client.search_runs(
            [experiment_id], " and ".join(conditions), max_results=1, order_by=["attributes.start_time DESC"]
        )
        return found[0] if found else None

    def names(self, experiment_id: str, beginning: str) -> list[str]:
        """The names of the newest thousand runs of an experiment that begin so."""
        # % and _ stand for anything in a LIKE, which so finds too many rather than too few.
        pattern = beginning.replace("'", "_")
        found = self.client.search_runs([experiment_id], f"attributes.run_name LIKE '{pattern}%'", max_results=1000)
        return [str(run.info.run_name) for run in found]

    def experiment(self, name: str, location: str | None) -> Experiment:
        """The experiment of this name, made when there is none.

        Raises:
            StoreUnavailableError: when the experiment was deleted; MLflow keeps its name.
        """
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return self.client.get_experiment(self.client.create_experiment(name, artifact_location=location))
            except MlflowException:
                # Another process was faster, or the store truly refuses.
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise StoreUnavailableError(
                f"tracking.experiment {name!r} was deleted from {self.name}; choose another name, or run "
                f"`mlflow experiments restore --experiment-id {found.experiment_id}`."
            )
        return found

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str]) -> Run:
        """Begin a run that carries the tags by which it is closed, should this process die."""
        process = Process.current()
        tags = {**tags, HOST_TAG: process.host, PROCESS_TAG: str(process), **sign_of_life()}
        return self.client.create_run(experiment_id, run_name=redacted(name), tags=tags)

    def resume_run(self, run_id: str) -> None:
        """Take over a run that was interrupted; why it was, is no longer its end."""
        self.touch(run_id)
        if FAILURE_TAG in self.client.get_run(run_id).data.tags:
            self.client.delete_tag(run_id, FAILURE_TAG)
        for key, value in {PROCESS_TAG: str(Process.current()), **sign_of_life()}.items():
            self.client.set_tag(run_id, key, value)
        self.client.update_run(run_id, status="RUNNING")

    def touch(self, run_id: str) -> None:
        """Write what is known already, to see whether the store takes it: the machine that the run is on."""
        self.client.set_tag(run_id, HOST_TAG, Process.current().host)

    def takes_others(self, run_id: str) -> bool:
        """Whether the store takes something else of a run: a database that was deleted, or is full, still reads."""
        try:
            self.touch(run_id)
        except Exception:  # noqa: BLE001 - any failure is the answer
            return False
        return True

    def close_stale_runs(self, experiment_id: str) -> list[str]:
        """Mark runs KILLED that say RUNNING although their process is gone; return their ids.

        Of another machine's process nobody here knows, but it gives a sign of life every minute.
        """
        closed = []
        for run in self.client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
            if (reason := _why_gone(run)) is not None:
                self.client.set_tag(run.info.run_id, FAILURE_TAG, reason)
                self.client.set_terminated(run.info.run_id, "KILLED")
                closed.append(run.info.run_id)
                log.info("Run %s was left behind: %s. It is marked KILLED.", run.info.run_name, reason)
        return closed


def sign_of_life() -> dict[str, str]:
    """The tag that says when a run's process was last heard of."""
    return {ALIVE_TAG: f"{time.time():.0f}"}


def _why_gone(run: Run) -> str | None:
    """Why the process of a run is taken to have ended; None as long as it may be at work."""
    process = Process.parse(run.data.tags.get(PROCESS_TAG, ""))
    if process is None:
        return None
    if process.gone:
        return f"process {process.pid} of {process.host} is gone: killed, or the machine went down"
    silence = time.time() - float(run.data.tags.get(ALIVE_TAG, "inf"))
    if process.host != Process.current().host and silence > SILENCE:
        return f"nothing was heard of process {process.pid} of {process.host} for {silence / 60:.0f} minutes"
    return None


def connect(config: TrackingConfig, repository_root: Path) -> tuple[Store, Experiment]:
    """Reach the store and find, or make, the experiment; runs in it that died are closed.

    Raises:
        StoreUnavailableError: within about ten seconds, when the store cannot be reached or written to.
    """
    uri = store_uri(config, repository_root)
    with asking(uri):
        check_reachable(uri)
        store = Store(uri)
        experiment = store.experiment(config.experiment, artifact_location(uri, repository_root))
        store.close_stale_runs(experiment.experiment_id)
        return store, experiment


@contextmanager
def asking(uri: str) -> Iterator[None]:
    """Turn whatever keeps a store from answering into one error that says what to do.

    The cause is left out of the traceback: MLflow's errors spell the URI out, password and all.
    """
    try:
        yield
    except StoreUnavailableError:
        raise
    except (MlflowException, SQLAlchemyError, OSError, Timeout, ImportError, ValueError) as error:
        reason = redacted(str(error).strip().split("\n")[0]).removesuffix(".")
        raise StoreUnavailableError(
            f"tracking.uri {redacted(uri)} cannot be used: {reason}. Mend that, name another store in tracking.uri or "
            "MLFLOW_TRACKING_URI, or go without tracking: tracking=none (the stages' own files keep every number)."
        ) from None
