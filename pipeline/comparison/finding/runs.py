"""Models behind an MLflow run: a training's newest evaluation, or an evaluation itself."""

import logging
import re
from pathlib import Path

from mlflow.entities import Run

from pipeline.comparison.finding.folders import EXPORT, is_evaluation, is_export
from pipeline.comparison.finding.found import Found, Places
from pipeline.plumbing.files import atomic_folder
from pipeline.provenance.identity import identity_path, read_identity
from pipeline.provenance.training import CONFIGURATION
from pipeline.tracking.opening import TRAINING
from pipeline.tracking.store import PARENT_TAG, STAGE_TAG, Store, asking, connect
from pipeline.tracking.sweep_summary import is_sweep

log = logging.getLogger(__name__)

EVALUATION = "evaluate"
SHORT = 8
# Of an experiment, the newest first, among which a name is looked for.
MOST_RUNS = 5000


def find_run(name: str, places: Places) -> Found | None:
    """The model behind a run by its id, the beginning of it, or its name; None where the store knows none such.

    Raises:
        FileNotFoundError, ValueError: when the run is none of a model.
        pipeline.tracking.store.StoreUnavailableError: when the store cannot be used.
    """
    store, experiment = connect(places.tracking, places.repository)
    run = _run(store, experiment.experiment_id, name)
    if run is None:
        return None
    with asking(store.uri):
        training = _training(store, run)
        evaluation = run if run.data.tags.get(STAGE_TAG) == EVALUATION else _newest_evaluation(store, training)
        shown = training or run
        label = f"{shown.info.run_name} ({shown.info.run_id[:SHORT]})"
        export = _export_of(training, places.outputs / EXPORT)
        folder = _bring(store, evaluation, places.cache) if evaluation else None
        trained_with = _bring_settings(store, training, places.cache) if training else None
    return Found(
        name,
        label,
        folder if folder and is_evaluation(folder) else None,
        export,
        trained_with,
        f"The run {label} has no evaluation that can be compared, and its export is not in {places.outputs}: evaluate "
        "it where it lies (python -m pipeline.evaluate paths.outputs=…), or name the folder of the export.",
    )


def _run(store: Store, experiment_id: str, name: str) -> Run | None:
    """The run that is meant; None where there is none.

    Raises:
        ValueError: when several are, or a sweep of many, or an experiment, or the run was deleted.
    """
    with asking(store.uri):
        found = _called(store, experiment_id, name)
        is_deleted = not found and store.has_deleted(name)
        is_experiment = not found and store.client.get_experiment_by_name(name) is not None
    if len(found) > 1:
        ids = ", ".join(run.info.run_id[:SHORT] for run in found[:5])
        raise ValueError(f"{len(found)} runs are called {name}; name one by its id, as {ids}.")
    if found and is_sweep(found[0]):
        best = found[0].data.tags.get("sweep.best_run", "its id")
        raise ValueError(f"{name} is a sweep of many trainings; name one of its jobs, the best by {best}.")
    if is_deleted:
        raise ValueError(f"The run {name} was deleted; name another, or run `mlflow runs restore --run-id {name}`.")
    if is_experiment:
        raise ValueError(f"{name} is an experiment of MLflow; name one of its runs, which `make ui` lists.")
    return found[0] if found else None


def _called(store: Store, experiment_id: str, name: str) -> list[Run]:
    """The runs of this id, whichever experiment they are of, or those of this name or beginning of an id."""
    if re.fullmatch(r"[0-9a-f]{32}", name):
        return [run for run in [store.run(name)] if run]
    runs = store.client.search_runs([experiment_id], max_results=MOST_RUNS)
    return [run for run in runs if name == run.info.run_name or _is_beginning(name, run.info.run_id)]


def _is_beginning(name: str, run_id: str) -> bool:
    """Whether somebody has typed enough of an id."""
    return len(name) >= SHORT - 1 and run_id.startswith(name)


def _training(store: Store, run: Run) -> Run | None:
    """The training that a run is, or is a stage of."""
    if run.data.tags.get(STAGE_TAG) == TRAINING:
        return run
    parent = run.data.tags.get(PARENT_TAG)
    return store.run(parent) if parent else None


def _newest_evaluation(store: Store, training: Run | None) -> Run | None:
    if training is None:
        return None
    return store.newest(training.info.experiment_id, EVALUATION, {PARENT_TAG: training.info.run_id})


def _export_of(training: Run | None, export: Path) -> Path | None:
    """The usual export, where it is from this training."""
    if training is None or not is_export(export):
        return None
    identity = read_identity(identity_path(export))
    ours = identity.training.tags() if identity and identity.training else {}
    tags = training.data.tags
    return export if ours and all(tags.get(name) == value for name, value in ours.items()) else None


def _bring(store: Store, evaluation: Run, cache: Path) -> Path:
    """The files of a finished evaluation, which no longer change: brought here once."""
    folder = cache / "runs" / evaluation.info.run_id
    if not folder.is_dir():
        log.info("Bringing the evaluation of run %s here.", evaluation.info.run_name)
        with atomic_folder(folder) as temporary:
            store.client.download_artifacts(evaluation.info.run_id, "", str(temporary))
    return folder


def _bring_settings(store: Store, training: Run, cache: Path) -> Path | None:
    """The settings of a training, where its run has kept them."""
    folder = cache / "trainings" / training.info.run_id
    if not folder.is_dir():
        with atomic_folder(folder) as temporary:
            if any(file.path == CONFIGURATION for file in store.client.list_artifacts(training.info.run_id)):
                store.client.download_artifacts(training.info.run_id, CONFIGURATION, str(temporary))
    path = folder / CONFIGURATION
    return path if path.exists() else None
