"""Whether a store can be used, found out in seconds: MLflow itself tries for minutes and reports in walls of text."""

import os
import re
import threading
from collections.abc import Callable
from typing import TypeVar

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from pipeline.tracking.config import sqlite_path
from pipeline.tracking.database import REVISION_TABLE, check_revision, prepare_database

# MLflow waits two minutes for an answer and asks seven more times. Here a store that does not answer is away: a start
# is refused within seconds, and a run under way keeps its journal. And it prints where a server shows the run, with the
# URI's password. Whoever sets these variables has the last word.
HTTP_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# Seconds that a server has to give its first answer, however slowly it sends it.
PATIENCE = 9.0
DRIVERS = {
    "psycopg": "'psycopg[binary]'",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "pymysql": "pymysql",
    "pyodbc": "pyodbc",
}
LOGIN = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
ANSWERS = {
    "401": f"it asks who you are (401); {LOGIN}",
    "403": f"it refuses this user (403); {LOGIN}",
    "404": "it answers, but not as an MLflow server (404); look at the address and its path",
}

Answer = TypeVar("Answer")


def use_http_defaults() -> None:
    """Let MLflow's client give up within seconds, unless the environment says otherwise."""
    for name, value in HTTP_DEFAULTS.items():
        os.environ.setdefault(name, value)


def check_reachable(uri: str) -> None:
    """Make sure that the store answers and can be used; a sqlite store that is not there yet is made.

    Raises:
        OSError: when it cannot be reached, read or written, or does not answer in time.
        ImportError: when the driver of its database is not installed.
        ValueError: when it is no store, or one that this release of MLflow does not understand.
    """
    database = sqlite_path(uri)
    if database is not None:
        prepare_database(database)
    elif uri.startswith("http"):
        use_http_defaults()
        within(PATIENCE, lambda: _ask_server(uri))
    elif not uri.startswith("databricks"):
        within(PATIENCE, lambda: _ask_database(uri))


def within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """What `ask` returns or raises.

    Raises:
        TimeoutError: when it takes longer; it is left behind in a thread that ends with the process.
    """
    answers: list[Answer] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            answers.append(ask())
        except Exception as error:  # noqa: BLE001 - handed on to the thread that asked
            errors.append(error)

    thread = threading.Thread(target=work, name="reaching the store", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"it gave no answer within {seconds:g} s")
    return answers[0]


def _ask_server(uri: str) -> bool:
    """Whether a tracking server lists an experiment; what it answers otherwise becomes a short reason."""
    try:
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except MlflowException as error:
        raise ConnectionError(cause(error)) from error
    return True


def cause(error: BaseException) -> str:
    """What kept a request from its answer, in few words."""
    message = str(error)
    if (found := re.search(r"(?:error code |too many |^)(\d{3})\b", message)) is not None:
        return ANSWERS.get(found[1], f"it answers with the error {found[1]}; its own log says why")
    for sign, reason in (
        ("Connection refused", "nothing listens there (connection refused); start the server"),
        ("timed out", "it gave no answer in time; look whether the server hangs"),
        ("Name or service not known", "there is no such host"),
        ("Temporary failure in name resolution", "its host's name cannot be looked up"),
        ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted; see MLFLOW_TRACKING_SERVER_CERT_PATH"),
    ):
        if sign in message:
            return reason
    return message.strip().split("\n")[0]


def _ask_database(uri: str) -> bool:
    """Whether a database answers, with tables of this MLflow or none yet."""
    try:
        engine = create_engine(make_url(uri), poolclass=NullPool)
    except NoSuchModuleError as error:
        raise ImportError(f"SQLAlchemy knows no such database driver: {uri.partition(':')[0]}") from error
    except ModuleNotFoundError as error:
        package = DRIVERS.get(str(error.name), str(error.name))
        raise ImportError(f"its driver is not installed; pip install {package}") from error
    except ArgumentError as error:
        raise ValueError("it is no address of a database; as in postgresql://user@host:5432/name") from error
    try:
        with engine.connect() as connection:
            check_revision(_revision(connection))
    except DBAPIError as error:
        raise ConnectionError(cause(error.orig or error)) from error
    return True


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(REVISION_TABLE):
        return None
    return str(connection.execute(text(f"SELECT version_num FROM {REVISION_TABLE}")).scalar())
