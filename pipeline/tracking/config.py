"""Which store receives the runs, and where that store lies."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from pipeline.plumbing.redaction import redacted, uri_user

KINDS = ("mlflow", "none")
# What the store keeps of an export: its files, where they lie, or nothing.
COPY, REFERENCE, NO_MODEL = "copy", "reference", "none"
LOG_MODEL = (COPY, REFERENCE, NO_MODEL)
DATABASE = "mlflow.db"
LONGEST_NAME = 250
ARTIFACTS = "mlartifacts"
SQLITE = "sqlite:///"
_SQLITE_URI = re.compile(r"sqlite(?:\+\w+)?:///([^?]*)")
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
        log_model: what the store keeps of exports: their files (`copy`), where they lie (`reference`), or `none`.
        registered_model: the model of the registry whose versions are champions; None names it after the experiment.
    """

    kind: str = "mlflow"
    uri: str | None = None
    experiment: str = "melisma"
    run_name: str | None = None
    system_metrics: bool = True
    log_model: str = REFERENCE
    registered_model: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"tracking.kind is {self.kind!r}; choose one of {', '.join(KINDS)}.")
        if not self.experiment.strip():
            raise ValueError("tracking.experiment is empty; name the MLflow experiment that groups the runs.")
        if self.run_name is not None and not self.run_name.strip():
            raise ValueError("tracking.run_name is empty; give a name, or null to have one made.")
        if self.log_model not in LOG_MODEL:
            raise ValueError(f"tracking.log_model is {self.log_model!r}; choose one of {', '.join(LOG_MODEL)}.")
        if self.registered_model is not None and (
            not self.registered_model.strip() or set(self.registered_model) & set("/:")
        ):
            raise ValueError("tracking.registered_model must be a name without / and :, or null.")
        for name in ("experiment", "run_name", "registered_model"):
            text = getattr(self, name) or ""
            if len(text) > LONGEST_NAME or not text.isprintable():
                raise ValueError(f"tracking.{name} must be at most {LONGEST_NAME} printable characters.")
        if self.uri is not None:
            _check_uri(self.uri, "tracking.uri")


def anchor(repository_root: Path) -> Path:
    """The folder a relative store lies in.

    A queued DVC experiment runs in a temporary copy of the repository, which vanishes with everything in it; DVC then
    points DVC_ROOT at the repository itself.
    """
    return Path(os.environ.get("DVC_ROOT") or repository_root).resolve()


def anchored(folder: Path, repository_root: Path) -> Path:
    """A folder, but outside the temporary copy of the repository in which DVC runs a queued experiment."""
    copy, repository = repository_root.resolve(), anchor(repository_root)
    if copy == repository or not folder.resolve().is_relative_to(copy):
        return folder
    return repository / folder.resolve().relative_to(copy)


def store_uri(config: TrackingConfig, repository_root: Path) -> str:
    """The tracking URI to use: absolute, so that every stage and every experiment finds the same store.

    Raises:
        ValueError: when tracking.uri or MLFLOW_TRACKING_URI names a folder, which MLflow no longer writes to.
    """
    origin, uri = "tracking.uri", config.uri
    if uri is None:
        origin, uri = "MLFLOW_TRACKING_URI", os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return sqlite_uri(anchor(repository_root) / DATABASE)
    _check_uri(uri, origin)
    database = sqlite_path(uri)
    return uri if database is None else sqlite_uri(anchor(repository_root) / database, uri.partition("?")[2])


def sqlite_path(uri: str) -> Path | None:
    """The file of a sqlite store, percent signs decoded as SQLAlchemy does; None for any other store."""
    match = _SQLITE_URI.match(uri)
    return Path(unquote(match[1])) if match else None


def sqlite_uri(path: Path, options: str = "") -> str:
    """The URI of a sqlite store in this file, whatever characters its name holds.

    Of a name with percent signs or question marks MLflow would make a second folder, spelt as in the URI; it does so
    only where the URI names no driver.
    """
    encoded = str(path).replace("%", "%25").replace("?", "%3F")
    scheme = SQLITE if encoded == str(path) else "sqlite+pysqlite:///"
    return f"{scheme}{encoded}" + (f"?{options}" if options else "")


def artifact_location(uri: str, repository_root: Path) -> str | None:
    """Where a new experiment keeps its files: beside a database; None leaves the choice to a tracking server."""
    if uri.startswith(("http", "databricks")):
        return None
    database = sqlite_path(uri)
    folder = anchor(repository_root) if database is None else database.parent
    return (folder / ARTIFACTS).as_uri()


def _check_uri(uri: str, origin: str) -> None:
    scheme = re.match(r"([a-z]+)(\+[a-z0-9]+)?(:|$)", uri)
    if scheme is None or scheme[1] not in SCHEMES:
        raise ValueError(
            f"{origin} is {redacted(uri)!r}, which MLflow cannot write to; "
            f"give a database (sqlite:///mlflow.db) or a server (http://localhost:5000)."
        )
    if scheme[1] == "sqlite" and (sqlite_path(uri) or Path()).name in ("", ":memory:"):
        raise ValueError(f"{origin} is {uri!r}, which names no file; give one, as in sqlite:///mlflow.db.")
    if scheme[1].startswith("http") and re.search(r"[/?#]", uri_user(uri)):
        raise ValueError(
            f"{origin} holds a password with a character that ends a host's name; "
            "write / as %2F, ? as %3F, # as %23 and @ as %40."
        )
