"""Clients that listen to a server side by side: how long each waits for the first sound, and how much all of them hear.

    python -m benchmarks.serve --export outputs/export [--clients 4] [--requests 4] [--seconds 5]
    python -m benchmarks.serve --address 127.0.0.1:8000 --clients 16

Starts `pipeline.serve` with as many rows as clients unless `--address` names a server. Every client asks for one
utterance after another, each with a seed of its own, and reads as fast as sound comes. Prints one JSON line: seconds
until the first sound (median, 95th percentile, worst), real-time factors of utterances from the request to the last
sound (median and worst; below 1 a listener does not wait), and seconds of speech a second, over all clients.
"""

import argparse
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

HEADER_BYTES, SAMPLE_BYTES = 44, 2


@dataclass(frozen=True)
class Heard:
    """One utterance as its listener had it.

    Attributes:
        first: seconds until there was sound.
        last: seconds until all of it was there.
        seconds: of sound.
    """

    first: float
    last: float
    seconds: float


def listen(address: str, seconds: float, seed: int) -> Heard | None:
    """Ask for an utterance and hear it to its end; None when the model said nothing.

    Raises:
        RuntimeError: when the server refuses.
    """
    begin = time.perf_counter()
    connection = http.client.HTTPConnection(address, timeout=600)
    with contextlib.closing(connection):
        body = json.dumps({"seconds": seconds, "seed": seed})
        connection.request("POST", "/v1/audio/speech", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {answer.read().decode()}")
        sample_rate = int(answer.headers["x-sample-rate"])
        answer.read(HEADER_BYTES)
        n_bytes = len(answer.read1())
        first = time.perf_counter() - begin
        while block := answer.read1():
            n_bytes += len(block)
    heard = Heard(first, time.perf_counter() - begin, n_bytes / SAMPLE_BYTES / sample_rate)
    return heard if n_bytes else None


def crowd(address: str, n_clients: int, n_requests: int, seconds: float) -> tuple[list[Heard], float]:
    """Let clients listen side by side; returns what was heard, and the seconds that it took."""

    def client(number: int) -> list[Heard]:
        asked = (listen(address, seconds, number * n_requests + request) for request in range(n_requests))
        return [heard for heard in asked if heard]

    begin = time.perf_counter()
    with ThreadPoolExecutor(n_clients) as clients:
        heard = [utterance for said in clients.map(client, range(n_clients)) for utterance in said]
    return heard, time.perf_counter() - begin


def summary(heard: Sequence[Heard], took: float, n_clients: int) -> dict[str, Any]:
    """What is printed."""
    firsts, factors = sorted(each.first for each in heard), sorted(each.last / each.seconds for each in heard)
    return {
        "clients": n_clients,
        "utterances": len(heard),
        "speech_seconds": sum(each.seconds for each in heard),
        "first_audio_seconds": statistics.median(firsts),
        "first_audio_seconds_p95": firsts[min(len(firsts) - 1, int(0.95 * len(firsts)))],
        "first_audio_seconds_worst": firsts[-1],
        "real_time_factor": statistics.median(factors),
        "real_time_factor_worst": factors[-1],
        "speech_seconds_per_second": sum(each.seconds for each in heard) / took,
    }


@contextlib.contextmanager
def started(export: str, n_rows: int, device: str, threads: int) -> Iterator[str]:
    """The address of a server of its own."""
    command = [
        sys.executable,
        "-m",
        "pipeline.serve",
        f"export={export}",
        "port=0",
        f"rows={n_rows}",
        f"device={device}",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            said = server.stdout.readline() if server.stdout else ""
            if "http://" not in said:
                raise RuntimeError("the server did not start; its words are above")
            yield said.split("http://")[1].split("/")[0]
        finally:
            server.terminate()
            server.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", default="outputs/export")
    parser.add_argument("--address", help="of a server that runs already")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--requests", type=int, default=4, help="of each client, one after another")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    own = started(options.export, options.clients, options.device, options.threads)
    with contextlib.nullcontext(options.address) if options.address else own as address:
        # Not counted: what is compiled, recorded and loaded by the first utterance.
        listen(address, 0.5, 2**31)
        heard, took = crowd(address, options.clients, options.requests, options.seconds)
    print(json.dumps({"threads": options.threads, **summary(heard, took, options.clients)}))


if __name__ == "__main__":
    main()
