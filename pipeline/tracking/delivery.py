"""Telling the store what a record says."""

from collections.abc import Sequence
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException, RestException

from pipeline.tracking.journal import Record
from pipeline.tracking.limits import TAG_LENGTH, shortened
from pipeline.tracking.model_entry import ModelEntry
from pipeline.tracking.models import METRICS_AT_ONCE, log_model, log_model_metrics
from pipeline.tracking.notes import NOTE_TAG, with_section
from pipeline.tracking.store import Store
from pipeline.tracking.sweep_summary import update_sweep

# What MLflow's own answer means that asking again will not change.
FINAL_ERRORS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "BAD_REQUEST")


class RejectedError(Exception):
    """The store answered, and will never take this record."""


def batch(records: list[Record]) -> list[Record]:
    """The records from the front that make one request: metrics of one run together, anything else alone."""
    first, size, n = records[0], len(records[0].values), 1
    while first.kind == "metrics" and n < len(records):
        record = records[n]
        size += len(record.values)
        if record.kind != "metrics" or record.run_id != first.run_id or size > METRICS_AT_ONCE:
            break
        n += 1
    return records[:n]


def deliver(store: Store, records: Sequence[Record]) -> None:
    """Tell the store one batch.

    Raises:
        RejectedError: when the store will never take it.
        Exception: whatever the way to the store raised; the batch is worth another attempt.
    """
    try:
        _request(store, records)
    except MlflowException as error:
        # A proxy in front of a server that is down answers too, but not in MLflow's words.
        if error.error_code in FINAL_ERRORS and (isinstance(error, RestException) or not store.is_remote):
            raise RejectedError(str(error)) from error
        raise


def may_pass(store: Store, error: Exception) -> bool:
    """Whether an error of a delivery is one of the way there: a server's, or of one behind it, and not this code's."""
    return store.is_remote and isinstance(error, MlflowException | OSError)


def _request(store: Store, records: Sequence[Record]) -> None:
    record, client = records[0], store.client
    match record.kind:
        case "metrics":
            metrics = [
                Metric(key, value, each.time, each.step) for each in records for key, value in each.values.items()
            ]
            client.log_batch(record.run_id, metrics=metrics, synchronous=True)
        case "parameters":
            _send_parameters(store, record)
        case "tags":
            tags = [RunTag(key, value) for key, value in record.values.items()]
            client.log_batch(record.run_id, tags=tags, synchronous=True)
        case "artifact":
            _send_artifact(store, record)
        case "dataset":
            client.log_inputs(record.run_id, [_dataset(record)])
        case "model":
            log_model(store, record.run_id, ModelEntry.from_values(record.values), record.time)
        case "evaluation":
            _send_evaluation(store, record)
        case "note":
            _write_section(store, record)
        case "status":
            client.set_terminated(record.run_id, record.values["status"], end_time=record.time)
        case "sweep":
            update_sweep(store, record.run_id)
        case _:
            raise RejectedError(f"no such kind of record: {record.kind}")


def _send_parameters(store: Store, record: Record) -> None:
    """Log parameters; MLflow lets none change, so of a resumed run only those that are new or equal are sent."""
    try:
        params = [Param(key, value) for key, value in record.values.items()]
        store.client.log_batch(record.run_id, params=params, synchronous=True)
    except MlflowException as error:
        run = store.run(record.run_id)
        if run is None:
            raise
        known = run.data.params
        changed = [key for key, value in record.values.items() if known.get(key, value) != value]
        if not changed:
            raise
        new = [Param(key, value) for key, value in record.values.items() if key not in known]
        store.client.log_batch(record.run_id, params=new, synchronous=True)
        raise RejectedError(f"the run keeps its first values of {', '.join(changed)}") from error


def _send_artifact(store: Store, record: Record) -> None:
    path = Path(record.values["path"])
    if not path.exists():
        raise RejectedError(f"{path} is no longer there")
    send = store.client.log_artifacts if path.is_dir() else store.client.log_artifact
    send(record.run_id, str(path), record.values["folder"])


def _send_evaluation(store: Store, record: Record) -> None:
    name, digest = record.values["dataset"]
    log_model_metrics(
        store, record.run_id, record.values["digest"], record.values["metrics"], (name, digest), record.time
    )


def _write_section(store: Store, record: Record) -> None:
    note = store.client.get_run(record.run_id).data.tags.get(NOTE_TAG, "")
    note = with_section(note, record.values["title"], record.values["text"])
    store.client.set_tag(record.run_id, NOTE_TAG, shortened(note, TAG_LENGTH))


def _dataset(record: Record) -> DatasetInput:
    values = dict(record.values)
    context = values.pop("context")
    return DatasetInput(Dataset(source_type="local", **values), [InputTag("mlflow.data.context", context)])
