"""Opening a run in MLflow: reach the store, tidy up after runs that died, find the parent."""

import logging
from pathlib import Path

from mlflow.entities import Run

from pipeline.tracking.config import TrackingConfig, anchored
from pipeline.tracking.journal import Journal, Record, owner
from pipeline.tracking.limits import valid_tags
from pipeline.tracking.lineage import lineage_tags
from pipeline.tracking.names import SEPARATOR, child_title, numbered
from pipeline.tracking.repeating import Repeating
from pipeline.tracking.request import RunRequest
from pipeline.tracking.run import OF_FILES, RecordedRun
from pipeline.tracking.store import HEARTBEAT, PARENT_TAG, STAGE_TAG, Store, asking, connect, sign_of_life
from pipeline.tracking.sweep_summary import is_sweep
from pipeline.tracking.system_metrics import SystemMetrics
from pipeline.tracking.writer import BackgroundWriter

log = logging.getLogger(__name__)

# What leads to files waits apart from all else: where the store keeps them may be away while the store itself is not.
JOURNAL, FILES_JOURNAL = "tracking_journal.jsonl", "tracking_files.jsonl"
TRAINING = "train"


def open_run(config: TrackingConfig, repository_root: Path, outputs: Path, request: RunRequest) -> RecordedRun:
    """Begin a run, or go on with an interrupted one, and the threads that record it.

    Raises:
        pipeline.tracking.store.StoreUnavailableError: when the store cannot be used.
    """
    store, experiment = connect(config, repository_root)
    with asking(store.uri):
        parent = _parent(store, experiment.experiment_id, request)
        run = _known(store, request.resume_run_id, "a new run begins")
        if run is None:
            tags = {**lineage_tags(repository_root), "mlflow.source.name": request.stage, **request.tags}
            tags[STAGE_TAG] = request.stage
            if parent is not None:
                tags[PARENT_TAG] = parent.info.run_id
            # MLflow nests a child only within the experiment of its parent.
            experiment_id = (parent.info if parent else experiment).experiment_id
            name = _name(config, store, experiment_id, request, parent)
            run = store.create_run(experiment_id, name, valid_tags(tags))
        else:
            store.resume_run(run.info.run_id)
    return _record(config, store, run, parent, anchored(outputs, repository_root))


def _record(config: TrackingConfig, store: Store, run: Run, parent: Run | None, folder: Path) -> RecordedRun:
    run_id = run.info.run_id
    records, files = (
        BackgroundWriter(_open_journal(folder / name, store.name, run_id), store) for name in (JOURNAL, FILES_JOURNAL)
    )
    beside: list[SystemMetrics | Repeating] = []

    def submit(record: Record) -> None:
        (files if record.kind in OF_FILES else records).submit(record)

    def close() -> None:
        for work in beside:
            work.stop()
        files.finish()
        records.close()
        files.close()
        if store.is_remote:
            log.info("The run's page: %s/%s", store.name.rstrip("/"), recorded.link("").removesuffix("/artifacts/"))

    recorded = RecordedRun(
        {"run_id": run_id, "experiment": config.experiment, "tracking_uri": store.name},
        submit,
        close,
        parent_run_id=parent.info.run_id if parent else None,
        sweep=parent is not None and is_sweep(parent),
        experiment_id=run.info.experiment_id,
    )
    beside.append(Repeating("sign of life", HEARTBEAT, lambda: recorded.set_tags(sign_of_life())))
    if config.system_metrics:
        beside.append(SystemMetrics(recorded.log_metrics, run.info.start_time / 1000))
    return recorded


def _name(config: TrackingConfig, store: Store, experiment_id: str, request: RunRequest, parent: Run | None) -> str:
    """The name that the user gave, or one by whose beginning the run is told from others of the experiment."""
    if config.run_name is not None and request.parent_run_id is None:
        return config.run_name
    if parent is None:
        beginning = request.name.partition(SEPARATOR)[0]
        return numbered(request.name, store.names(experiment_id, beginning))
    # The jobs of a sweep are told apart by what they override.
    return request.name if is_sweep(parent) else child_title(request.name, parent.info.run_name)


def _parent(store: Store, experiment_id: str, request: RunRequest) -> Run | None:
    if not request.parent_tags:
        return _known(store, request.parent_run_id, "this run gets no parent")
    parent = None if request.parent_run_id is None else store.run(request.parent_run_id)
    parent = parent or store.newest(experiment_id, TRAINING, request.parent_tags)
    if parent is None:
        log.warning("The tracking store %s has no run of this training; this run gets no parent.", store.name)
    return parent


def _known(store: Store, run_id: str | None, otherwise: str) -> Run | None:
    if run_id is None:
        return None
    run = store.run(run_id)
    if run is None:
        log.warning("The tracking store %s has no run %s; %s.", store.name, run_id, otherwise)
    return run


def _open_journal(path: Path, store: str, run_id: str) -> Journal:
    """A journal of this run, which goes on with what a run of the same store left undelivered.

    Records for another store are set aside; where another run writes, this one gets a file of its own.
    """
    own = path.with_name(f"{path.stem}.{run_id[:8]}{path.suffix}")
    if not path.exists():
        return Journal(path, store)
    found = owner(path)
    if found is None:
        log.warning("%s is not a tracking journal; this run uses %s.", path, own.name)
        return Journal(own, store)
    other_store, process = found
    if process is not None and not process.gone:
        return Journal(own, store)
    if other_store != store:
        aside = path.with_name(f"{path.stem}.{path.stat().st_mtime_ns}{path.suffix}")
        path.rename(aside)
        log.warning(
            "%s keeps records for %s; replay with `python -m pipeline.tracking.replay %s`.", aside, other_store, aside
        )
    return Journal(path, store)
