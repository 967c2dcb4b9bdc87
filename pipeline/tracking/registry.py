"""The registry of models: its alias `champion` leads to the model that nothing was shown to be better than."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)

from pipeline.mlflow_model.description import is_speaking
from pipeline.plumbing.redaction import redacted
from pipeline.provenance.exports import export_digest
from pipeline.provenance.identity import identity_path, read_identity
from pipeline.tracking.config import TrackingConfig
from pipeline.tracking.limits import valid_tags
from pipeline.tracking.model_entry import EXPORT, ModelEntry
from pipeline.tracking.models import DIGEST_TAG, find_model, keep_files, log_model
from pipeline.tracking.opening import TRAINING
from pipeline.tracking.store import Store, asking, connect

log = logging.getLogger(__name__)

CHAMPION = "champion"
BETTER, FIRST = "better", "first"
UNKNOWN = (ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE))


@dataclass(frozen=True)
class Champion:
    """The version of the registered model that the alias `champion` leads to.

    Attributes:
        name: of the registered model.
        version: of it.
        digest: of its export, as `export_digest` gives it.
        run_id: the run that made it; empty where none is known.
    """

    name: str
    version: str
    digest: str
    run_id: str

    @property
    def uri(self) -> str:
        """What `mlflow.pyfunc.load_model` takes."""
        return f"models:/{self.name}@{CHAMPION}"

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"


def find_champion(config: TrackingConfig, repository_root: Path) -> Champion | None:
    """The champion; None while there is none.

    Raises:
        pipeline.tracking.store.StoreUnavailableError: when the store cannot be used.
    """
    store, _ = connect(config, repository_root)
    with asking(store.uri):
        return _champion(store, registered_name(config))


def champion_export(config: TrackingConfig, repository_root: Path) -> Path:
    """The champion's export: in the store itself where that lies on this machine, else brought here.

    Raises:
        FileNotFoundError: while there is no champion.
        pipeline.tracking.store.StoreUnavailableError: when the store cannot be used.
    """
    store, _ = connect(config, repository_root)
    name = registered_name(config)
    with asking(store.uri):
        champion = _champion(store, name)
    if champion is None:
        raise FileNotFoundError(f"The model {name} has no champion yet; promote=true makes the first one.")
    with asking(store.uri):
        location = store.client.get_model_version_download_uri(name, champion.version)
        return Path(download_artifacts(artifact_uri=location, tracking_uri=store.uri))


def promote(
    config: TrackingConfig,
    repository_root: Path,
    export: Path,
    over: Path | None,
    verdict: str,
    evidence: Mapping[str, str],
) -> Champion:
    """Make an export the champion, if a paired test has said that it is better than the champion of now.

    The registry gets a version of its own for it, with its files: a champion outlives the folder that it comes from.

    Args:
        config: which store, and which registered model.
        repository_root: where a relative store lies.
        export: which was shown to be better.
        over: the export that it was tested against; None: none, which only the first champion may be.
        verdict: the test's, as `pipeline.statistics.paired` words it.
        evidence: figures of the test, kept with the version.

    Raises:
        ValueError: when the verdict is another, or what it was tested against is not the champion; nothing has moved.
        pipeline.tracking.store.StoreUnavailableError: when the store cannot be used.
    """
    if not is_speaking(export):
        raise ValueError(f"{export} is no export that speaks; convert its checkpoint with layout=huggingface.")
    store, experiment = connect(config, repository_root)
    name, digest = registered_name(config), export_digest(export)
    with asking(store.uri):
        champion = _champion(store, name)
    if champion is not None:
        if champion.digest == digest:
            log.info("%s, the champion of now, is this very export: nothing moves.", champion)
            return champion
        _require_test(champion, over, verdict)
    with asking(store.uri):
        model = find_model(store, experiment.experiment_id, digest) or _log(store, experiment.experiment_id, export)
    if model is None:
        raise ValueError(
            f"{export} is from no run of the experiment {experiment.name} in {redacted(store.uri)}, and a champion has "
            "one. Name the store and the experiment of its training in tracking.uri and tracking.experiment; a "
            "training that was recorded nowhere (tracking=none), or whose store is gone, has to be repeated with "
            "tracking."
        )
    with asking(store.uri):
        keep_files(store, model, export)
        tags = valid_tags({**evidence, DIGEST_TAG: digest, "verdict": verdict if champion else FIRST})
        return _register(store, name, model, tags)


def registered_name(config: TrackingConfig) -> str:
    """The registered model whose versions are champions."""
    return config.registered_model or config.experiment


def _require_test(champion: Champion, over: Path | None, verdict: str) -> None:
    """Refuse what no test against the champion has shown to be better."""
    if over is None or export_digest(over) != champion.digest:
        against = "nothing" if over is None else str(over)
        raise ValueError(
            f"The test was against {against}, and the champion is {champion}; compare with the champion itself."
        )
    if verdict != BETTER:
        raise ValueError(f'The champion stays {champion}: the verdict is "{verdict}", and only "{BETTER}" moves it.')


def _champion(store: Store, name: str) -> Champion | None:
    try:
        version = store.client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        # Of a model that there is none of, and of an alias that it does not have.
        if error.error_code not in UNKNOWN:
            raise
        return None
    return _as_champion(version)


def _as_champion(version: ModelVersion) -> Champion:
    return Champion(version.name, str(version.version), version.tags.get(DIGEST_TAG, ""), version.run_id or "")


def _log(store: Store, experiment_id: str, export: Path) -> LoggedModel | None:
    """Make a model of an export that no run has logged: of its training's run; None where that is not known."""
    identity = read_identity(identity_path(export))
    if identity is None or identity.training is None:
        return None
    tags = identity.training.tags()
    run = store.newest(experiment_id, TRAINING, tags)
    if run is None:
        return None
    entry = ModelEntry(EXPORT, EXPORT, export_digest(export), export, tags=tags)
    return log_model(store, run.info.run_id, entry, int(time.time() * 1000))


def _register(store: Store, name: str, model: LoggedModel, tags: Mapping[str, str]) -> Champion:
    try:
        store.client.create_registered_model(name, description=f"The alias `{CHAMPION}` moves only by a paired test.")
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    # A server looks the model up itself; of a database MLflow would ask another store, that of its own setting.
    source = f"models:/{model.model_id}" if store.uri.startswith("http") else model.artifact_location
    version = store.client.create_model_version(
        name, source, run_id=model.source_run_id, tags=dict(tags), model_id=model.model_id
    )
    store.client.set_registered_model_alias(name, CHAMPION, version.version)
    champion = _as_champion(version)
    log.info("%s is the champion now: %s.", champion, champion.uri)
    return champion
