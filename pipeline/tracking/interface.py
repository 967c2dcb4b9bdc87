"""MLflow's pages for one experiment: where they are, and the server that shows them on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from contextlib import suppress
from pathlib import Path

from pipeline.tracking.config import TrackingConfig
from pipeline.tracking.store import StoreUnavailableError, connect

HOST = "127.0.0.1"
N_PORTS = 100
START_PATIENCE = 120.0
# Each imports MLflow anew, and one reader needs one.
WORKERS = "1"


def show(config: TrackingConfig, repository_root: Path, first_port: int) -> None:
    """Serve the store's pages until interrupted, and say where; a store that is a server already only gets named.

    Args:
        config: which store and which experiment.
        repository_root: where a relative store lies.
        first_port: the port to listen on; where it is taken, the next free one.

    Raises:
        ValueError: when the port cannot be, or runs are not recorded at all.
        pipeline.tracking.store.StoreUnavailableError: when the store cannot be used, or its pages do not come up.
    """
    if config.kind == "none":
        raise ValueError("tracking.kind is none: no runs are recorded, so there is nothing to show.")
    store, experiment = connect(config, repository_root)
    if store.uri.startswith("http"):
        _open(training_runs(store.name, experiment.experiment_id))
        return
    port = free_port(first_port)
    if port != first_port:
        print(f"Port {first_port} is taken; using {port}.")
    server = _start(store.uri, port)
    # Whoever ends this process ends the server with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _wait(f"http://{HOST}:{port}/", server)
        _open(training_runs(f"http://{HOST}:{port}", experiment.experiment_id))
        server.wait()
    except KeyboardInterrupt:
        print("Closed.")
    finally:
        _end(server)


def _start(uri: str, port: int) -> subprocess.Popen[bytes]:
    """MLflow's server as one quiet process, in a group of its own."""
    command = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port)]
    command += ["--workers", WORKERS, "--uvicorn-opts", "--log-level warning"]
    # Not on the command line, which every user of the machine can read: the address of a database may hold a password.
    environment = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment["PYTHONWARNINGS"] = "ignore"
    return subprocess.Popen(command, env=os.environ | environment, start_new_session=True)


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server, and what it has started."""
    if sys.platform == "win32":
        server.terminate()
    else:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
    server.wait()


def training_runs(server: str, experiment_id: str) -> str:
    """The address of the table of training runs, which MLflow otherwise hides behind its pages for chat models."""
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"


def free_port(first: int) -> int:
    """The first port from `first` on that nobody listens on.

    Raises:
        ValueError: when `first` is no port, or all of the next hundred are taken.
    """
    if not 1 <= first <= 65535:
        raise ValueError(f"port is {first}; choose one from 1 to 65535.")
    last = min(first + N_PORTS, 65536)
    for port in range(first, last):
        with socket.socket() as probe:
            # As the server will ask for it: a port that a connection of the past still holds counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ValueError(f"The ports {first} to {last - 1} are all taken; choose another with port=….")


def _open(address: str) -> None:
    """Name the page, and show it where there is a screen."""
    print(f"The training runs are at {address}", flush=True)
    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)


def _wait(address: str, server: subprocess.Popen[bytes]) -> None:
    """Return once the server answers."""
    deadline = time.monotonic() + START_PATIENCE
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise StoreUnavailableError(f"MLflow's pages did not come up at {address}; its own words are above.")
