"""Which store receives the runs, and where that store lies."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

KINDS = ("mlflow", "none")
DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
SQLITE = "sqlite:///"
SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")


@dataclass(frozen=True)
class TrackingConfig:
    """Where runs are recorded.

    Attributes:
        kind: `mlflow`, or `none` to keep metrics in the stages' own files only.
        uri: the MLflow tracking URI; None follows MLFLOW_TRACKING_URI, else the sqlite store at the repository root.
        experiment: the MLflow experiment that groups the runs.
        run_name: a name for the training's run; None lets the stage name it after what it trains.
        system_metrics: record CPU, memory, disk, network and GPU use beside the metrics.
    """

    kind: str = "mlflow"
    uri: str | None = None
    experiment: str = "melisma"
    run_name: str | None = None
    system_metrics: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"tracking.kind is {self.kind!r}; choose one of {', '.join(KINDS)}.")
        if not self.experiment.strip():
            raise ValueError("tracking.experiment is empty; name the MLflow experiment that groups the runs.")
        if self.run_name is not None and not self.run_name.strip():
            raise ValueError("tracking.run_name is empty; give a name, or null to have one made.")
        if self.uri is not None:
            _check_scheme(self.uri, "tracking.uri")


def anchor(repository_root: Path) -> Path:
    """The folder a relative store lies in.

    A queued DVC experiment runs in a temporary copy of the repository, which vanishes with everything in it; DVC then
    points DVC_ROOT at the repository itself.
    """
    return Path(os.environ.get("DVC_ROOT") or repository_root).resolve()


def store_uri(config: TrackingConfig, repository_root: Path) -> str:
    """The tracking URI to use: absolute, so that every stage and every experiment finds the same store.

    Raises:
        ValueError: when tracking.uri or MLFLOW_TRACKING_URI names a folder, which MLflow no longer writes to.
    """
    origin, uri = "tracking.uri", config.uri
    if uri is None:
        origin, uri = "MLFLOW_TRACKING_URI", os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{DATABASE}"
    _check_scheme(uri, origin)
    database = sqlite_path(uri)
    return uri if database is None else f"{SQLITE}{anchor(repository_root) / database}"


def sqlite_path(uri: str) -> Path | None:
    """The file of a sqlite store; None for any other store."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def artifact_location(uri: str, repository_root: Path) -> str | None:
    """Where a new experiment keeps its files: beside a database; None leaves the choice to a tracking server."""
    if uri.startswith(("http", "databricks")):
        return None
    database = sqlite_path(uri)
    folder = anchor(repository_root) if database is None else database.parent
    return (folder / ARTIFACTS).as_uri()


def without_credentials(uri: str) -> str:
    """The URI as it may be shown and written down: without the user and password it may carry."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _check_scheme(uri: str, origin: str) -> None:
    scheme = re.match(r"([a-z]+)(\+[a-z0-9]+)?(:|$)", uri)
    if scheme is None or scheme[1] not in SCHEMES:
        raise ValueError(
            f"{origin} is {without_credentials(uri)!r}, which MLflow cannot write to; "
            f"give a database (sqlite:///mlflow.db) or a server (http://localhost:5000)."
        )
