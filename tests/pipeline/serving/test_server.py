"""A real server on a free port: clients side by side, clients that leave, and its end."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import uvicorn

from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.serving.server import address_of, listen
from tests.speaking_export import noise_codec, talkative_decoder, write_speaking_export

REPOSITORY = Path(__file__).parents[3]
GREEDY = SamplingConfig(temperature=0)


@pytest.fixture(scope="module")
def port(server_with) -> Iterator[int]:
    """Of a server whose utterances do not end by themselves."""
    with listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(server_with(GREEDY).application(), lifespan="on", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def ask(port: int, **fields: object) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    body = json.dumps(fields)
    connection.request("POST", "/v1/audio/speech", body, {"Content-Type": "application/json"})
    return connection.getresponse()


def health(port: int) -> dict[str, object]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", "/health")
    return json.load(connection.getresponse())


def until(port: int, **expected: object) -> None:
    deadline = time.monotonic() + 60
    while not expected.items() <= health(port).items():
        assert time.monotonic() < deadline, health(port)
        time.sleep(0.02)


def test_clients_side_by_side_hear_what_each_hears_alone(port: int) -> None:
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda seed: ask(port, seconds=0.3 + 0.1 * seed, seed=seed).read(), range(4)))
    for seed, heard in enumerate(answers):
        assert heard == ask(port, seconds=0.3 + 0.1 * seed, seed=seed).read()
        assert len(heard) == 44 + 2 * 64 * round(125 * (0.3 + 0.1 * seed))


def test_sound_comes_before_the_utterance_ends_and_whoever_leaves_makes_room(port: int) -> None:
    leaving = [ask(port, seconds=20, seed=seed) for seed in range(2)]
    for answer in leaving:
        assert answer.read(1000)[:4] == b"RIFF"
    assert health(port)["speaking"] == 2
    for answer in leaving:
        answer.close()
    assert len(ask(port, seconds=0.4, seed=3).read()) == 44 + 2 * 64 * 50
    until(port, speaking=0, waiting=0)


def test_too_many_are_told_to_come_back(port: int) -> None:
    speaking = [ask(port, seconds=20, seed=seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as clients:
        waiting = [clients.submit(ask, port, seconds=0.1, seed=seed) for seed in range(2)]
        until(port, speaking=2, waiting=2)
        refused = ask(port, seconds=0.1)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "2")
        assert "ask again a little later" in json.load(refused)["error"]["message"]
        for answer in speaking:
            answer.close()
        assert [future.result().status for future in waiting] == [200, 200]


def test_a_client_that_leaves_while_it_waits_is_forgotten(port: int) -> None:
    speaking = [ask(port, seconds=20, seed=seed) for seed in range(2)]
    with socket.create_connection(("127.0.0.1", port)) as waiting:
        head = (
            "POST /v1/audio/speech HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            "Content-Length: 2",
        )
        waiting.sendall("\r\n".join((*head, "", "{}")).encode())
        until(port, speaking=2, waiting=1)
    until(port, speaking=2, waiting=0)
    for answer in speaking:
        answer.close()
    until(port, speaking=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_when_asked_and_lets_speech_come_to_its_end(tmp_path: Path, number: int) -> None:
    export = write_speaking_export(tmp_path / "export", talkative_decoder(), noise_codec())
    command = [sys.executable, "-m", "pipeline.serve", f"export={export}", "port=0", "temperature=0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.readline()
        assert said.startswith("Speech is at http://127.0.0.1:"), said
        answer = ask(int(said.split(":")[2].split("/")[0]), seconds=1)
        beginning = answer.read(100)
        process.send_signal(number)
        assert len(beginning + answer.read()) == 44 + 2 * 64 * 125
        answer.close()
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == "Closed.\n"


def test_a_port_that_is_taken_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        assert address_of(taken).startswith("http://127.0.0.1:")
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"host is 127.0.0.1 and port {port}, where nobody can listen \(.*port=0"):
            listen("127.0.0.1", port)
    with pytest.raises(ValueError, match="host is nowhere.invalid and port 0"):
        listen("nowhere.invalid", 0)
