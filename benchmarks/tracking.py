"""What a training step pays for its tracking store: whole, slow, failing, hanging or gone.

    python -m benchmarks.tracking [--steps 2000] [--milliseconds 5] [--metrics 16]

Each step waits, as for a GPU, and then logs so many numbers. The store is a server in this process that takes records
as MLflow's does. Prints one JSON line for each state of the server: the milliseconds that a step's call took, on
average and at most, those of the processor that all threads took for a step, the server's among them, the seconds that
the run's end took, and how many records were kept for later.
"""

import argparse
import json
import logging
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.command_line import count
from pipeline.tracking.journal import Journal
from pipeline.tracking.run import RecordedRun
from pipeline.tracking.store import Store
from pipeline.tracking.writer import BackgroundWriter

WHOLE, SLOW, FAILING, HANGING, GONE = STATES = ("whole", "slow", "failing", "hanging", "gone")
# Seconds of an answer: just within what a client waits, and far beyond.
DELAYS = {SLOW: 5.0, HANGING: 60.0}


class FaultyServer:
    """As much of an MLflow server as takes the records of a run, and fails as it is told.

    Args:
        state: one of STATES.

    Attributes:
        state: may change from one request to the next, by `mend`.
        requests: the path and the body of each request that was taken.
    """

    def __init__(self, state: str = WHOLE) -> None:
        self.state = state
        self.requests: list[tuple[str, dict[str, object]]] = []
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(), bind_and_activate=False)
        self._server.daemon_threads = True
        self._server.server_bind()
        # A port that is bound and not listened on refuses connections.
        if state != GONE:
            self._listen()

    @property
    def uri(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def mend(self) -> None:
        """Be whole from now on."""
        if self.state == GONE:
            self._listen()
        self.state = WHOLE

    def close(self) -> None:
        """Let go of every request, and of the port."""
        self._ended.set()
        if self.state != GONE:
            self._server.shutdown()
        self._server.server_close()

    def _listen(self) -> None:
        self._server.server_activate()
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                owner._answer(self)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        self._ended.wait(DELAYS.get(self.state, 0.0))
        # Who asked may have given up.
        with suppress(OSError):
            if self.state == FAILING:
                request.send_error(500)
                return
            self.requests.append((request.path, json.loads(body or b"{}")))
            request.send_response(200)
            request.send_header("Content-Length", "2")
            request.end_headers()
            request.wfile.write(b"{}")


@contextmanager
def faulty_server(state: str = WHOLE) -> Iterator[FaultyServer]:
    """A server of a state, for a while."""
    server = FaultyServer(state)
    try:
        yield server
    finally:
        server.close()


def measure(state: str, steps: int, step_seconds: float, n_metrics: int) -> dict[str, float | str]:
    """Log the steps of a run to a server in a state; return what they have paid."""
    metrics = {f"train/metric_{number}": 1.0 / (1 + number) for number in range(n_metrics)}
    calls = []
    with tempfile.TemporaryDirectory() as folder, faulty_server(state) as server:
        writer = BackgroundWriter(Journal(Path(folder, "tracking_journal.jsonl"), server.uri), Store(server.uri))
        run = RecordedRun({"run_id": "0" * 32}, writer.submit, lambda: None)
        with run:
            processor = time.process_time()
            for step in range(steps):
                time.sleep(step_seconds)
                began = time.perf_counter()
                run.log_metrics(metrics, step)
                calls.append(time.perf_counter() - began)
            processor = time.process_time() - processor
        began = time.perf_counter()
        kept = writer.close()
        return {
            "state": state,
            "milliseconds a step": round(1e3 * sum(calls) / steps, 3),
            "at most": round(1e3 * max(calls), 1),
            "of the processor": round(1e3 * processor / steps, 3),
            "end of the run, seconds": round(time.perf_counter() - began, 1),
            "records kept": kept,
        }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracking", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=count, default=2000)
    parser.add_argument("--milliseconds", type=float, default=5.0, help="of a step without its tracking")
    parser.add_argument("--metrics", type=count, default=16, help="numbers a step")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    for state in STATES:
        print(json.dumps(measure(state, options.steps, options.milliseconds / 1e3, options.metrics)), flush=True)


if __name__ == "__main__":
    main()
