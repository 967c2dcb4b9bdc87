"""Models in the store: MLflow's `LoggedModel`, with its metrics, and with its files or a reference to them."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlparse

from mlflow.entities import LoggedModel, Metric
from mlflow.entities.logged_model_output import LoggedModelOutput

from pipeline.mlflow_model.description import is_speaking, write_description
from pipeline.plumbing.files import link_or_copy
from pipeline.provenance.exports import size_of
from pipeline.tracking.config import COPY, REFERENCE
from pipeline.tracking.limits import DIGEST_LENGTH, valid_tags
from pipeline.tracking.model_entry import EXPORT, ModelEntry, model_name
from pipeline.tracking.notes import NOTE_TAG
from pipeline.tracking.store import Store

# More MLflow takes in no request.
METRICS_AT_ONCE = 1000
DIGEST_TAG = "melisma.digest"
KEPT_TAG = "melisma.kept"
PATH_TAG = "melisma.path"
SIZE_TAG = "melisma.bytes"


def log_model(store: Store, run_id: str, entry: ModelEntry, time_ms: int) -> LoggedModel:
    """Tell the store of a model that a run has made; one that it knows by its digest stays one.

    Args:
        store: which is told.
        run_id: of the run.
        entry: the model.
        time_ms: when it was made, in milliseconds since the epoch.
    """
    run = store.client.get_run(run_id)
    model = find_model(store, run.info.experiment_id, entry.digest)
    if model is None:
        tags = {**entry.tags, DIGEST_TAG: entry.digest}
        model = store.client.create_logged_model(
            run.info.experiment_id,
            name=model_name(run.info.run_name, entry.name),
            source_run_id=run_id,
            tags=valid_tags(tags),
            params={"step": str(entry.step)} if entry.step else {},
            model_type=entry.kind,
        )
        store.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, entry.step)])
    _file(store, model, entry)
    if entry.metrics:
        log_model_metrics(store, run_id, entry.digest, entry.metrics, entry.dataset, time_ms, entry.step)
    return store.client.finalize_logged_model(model.model_id, "READY")


def find_model(store: Store, experiment_id: str, digest: str) -> LoggedModel | None:
    """The model of an experiment that has this digest; None where there is none."""
    found = store.client.search_logged_models(
        [experiment_id], filter_string=f"tags.`{DIGEST_TAG}` = '{digest}'", max_results=1
    )
    return found[0] if found else None


def log_model_metrics(
    store: Store,
    run_id: str,
    digest: str,
    metrics: Mapping[str, float],
    dataset: tuple[str, str] | None,
    time_ms: int,
    step: int = 0,
) -> None:
    """Log metrics on a run, and on the model of this digest, if the store knows it, tied to the data they are of.

    Args:
        store: where both are.
        run_id: of the run.
        digest: of the model's export.
        metrics: by name.
        dataset: name and digest of the data; None: nobody knows.
        time_ms: when they were measured, in milliseconds since 1970.
        step: of the training.
    """
    model = find_model(store, store.client.get_run(run_id).info.experiment_id, digest)
    model_id = model.model_id if model else None
    name, data_digest = dataset or (None, None)
    logged = [
        Metric(key, value, time_ms, step, model_id, name, data_digest and data_digest[:DIGEST_LENGTH])
        for key, value in metrics.items()
    ]
    for start in range(0, len(logged), METRICS_AT_ONCE):
        store.client.log_batch(run_id, metrics=logged[start : start + METRICS_AT_ONCE], synchronous=True)


def keep_files(store: Store, model: LoggedModel, export: Path) -> None:
    """Give a model the files of an export, so that it outlives the folder they come from.

    Where both lie on one file system they get a second name and take no room: nobody changes the files of an export.
    """
    folder = _local(model.artifact_location)
    if folder is None:
        store.client.log_model_artifacts(model.model_id, str(export))
        _send_description(store, model, export, None)
    else:
        shutil.copytree(export, folder, copy_function=link_or_copy, dirs_exist_ok=True)
        write_description(folder, export)
    store.client.set_logged_model_tags(model.model_id, {KEPT_TAG: COPY, SIZE_TAG: str(size_of(export))})


def _file(store: Store, model: LoggedModel, entry: ModelEntry) -> None:
    """Keep of a model what is asked for, and say where the rest lies."""
    if entry.path is None:
        store.client.set_logged_model_tags(model.model_id, {KEPT_TAG: "no"})
        return
    store.client.set_logged_model_tags(model.model_id, {PATH_TAG: str(entry.home or entry.path)})
    if entry.kind != EXPORT or not is_speaking(entry.path):
        store.client.set_logged_model_tags(model.model_id, {KEPT_TAG: "elsewhere"})
        return
    _explain(store, model)
    if entry.keep == COPY:
        keep_files(store, model, entry.path)
    elif model.tags.get(KEPT_TAG) != COPY:
        _send_description(store, model, entry.path, entry.digest, entry.home)
        facts = {KEPT_TAG: REFERENCE, SIZE_TAG: str(size_of(entry.path))}
        store.client.set_logged_model_tags(model.model_id, facts)


def _explain(store: Store, model: LoggedModel) -> None:
    """Say on the model's page how it is loaded; what somebody has written there stays."""
    if NOTE_TAG not in model.tags:
        note = (
            "Speaks, from nothing or going on from audio or tokens: "
            f'`mlflow.pyfunc.load_model("models:/{model.model_id}")`. '
            "Its metrics are tied to the data that they were measured on."
        )
        store.client.set_logged_model_tags(model.model_id, {NOTE_TAG: note})


def _send_description(
    store: Store, model: LoggedModel, export: Path, digest: str | None, home: Path | None = None
) -> None:
    with tempfile.TemporaryDirectory(prefix="melisma-") as name:
        folder = Path(name)
        write_description(folder, export, digest, home)
        store.client.log_model_artifacts(model.model_id, str(folder))


def _local(location: str) -> Path | None:
    """The folder of this machine that a model's files lie in; None where a server or a cloud keeps them."""
    parsed = urlparse(location)
    return Path(unquote(parsed.path)) if parsed.scheme in ("", "file") else None
