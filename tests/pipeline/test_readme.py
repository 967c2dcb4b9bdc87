"""Every command of the README, in a copy of the repository."""

import json
import re
import socket
import urllib.request
from pathlib import Path

import pytest

from tests.repository_copy import REPOSITORY, RepositoryCopy, copy_repeats_others

# Commands that would start this test anew, change the machine, or were run by the tests above.
NOT_RUN_HERE = {
    "make test": "is what runs this",
    "make lock": "asks the package index",
    "make lint": "continuous integration runs it",
    "make ui": "test_the_interface_opens_on_training_runs…",
    "python -m pipeline.serve": "test_the_server_speaks…",
    "source .venv/bin/activate": "the copy's commands find the environment on PATH",
    "dvc exp run -S data=folder -S data.root=/path/to/audio": "test_experiments_switch_groups_and_leaves",
    "dvc exp run -S model=tiny -S optimizer.lr=1e-3": "test_experiments_switch_groups_and_leaves",
    "python -m pipeline.train -m model=tiny,small optimizer.lr=1e-3,3e-4": "test_a_sweep_keeps_its_jobs_apart…",
    "dvc exp show --only-changed --drop outputs": "test_experiments_switch_groups_and_leaves",
    "dvc metrics diff": "test_experiments_switch_groups_and_leaves",
}


def readme_commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "README.md").read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_another_copy_repeats_every_byte(copy: RepositoryCopy) -> None:
    copy_repeats_others(copy)


@pytest.mark.parametrize("command", [c for c in readme_commands() if c not in NOT_RUN_HERE])
def test_the_readme_s_commands_work(copy: RepositoryCopy, recordings: Path, command: str) -> None:
    if command.startswith("make"):
        # The environment of these tests stands for the one that make would build.
        (copy.root / ".venv").mkdir(exist_ok=True)
        for name in ("dependencies", "dependencies-cuda", "installed", "installed-cuda"):
            (copy.root / ".venv" / name).touch()
    if "data=folder" in command:
        command += " data.screening.max_rejected_fraction=0.2 tracking=none"
    output = copy.run(*command.replace("/path/to/audio", str(recordings)).split())
    assert "Traceback" not in output
    if "data=folder" in command:
        manifest = (copy.root / "data/prepared/manifest.csv").read_text()
        assert re.search(r"broken.wav.*rejected,\S", manifest)
        # What comes after it in the README goes on with what was trained.
        copy.run("dvc", "checkout", "--force", "data/prepared")


def test_the_interface_opens_on_training_runs_and_on_another_port_where_its_own_is_taken(copy: RepositoryCopy) -> None:
    assert "make ui" in readme_commands()
    assert "python -m pipeline.ui port=5000" in copy.run("make", "-n", "--no-print-directory", "ui")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with copy.started("python", "-m", "pipeline.ui", f"port={port}") as interface:
            said = []
            for line in interface.stdout:
                said.append(line)
                if "training runs are at" in line:
                    break
            address = re.search(
                r"http://127.0.0.1:(\d+)/#/experiments/(\d+)/runs\?workflowType=machine_learning", said[-1]
            )
            assert address, "".join(said)
            assert f"Port {port} is taken; using {address[1]}." in "".join(said)
            page = urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/", timeout=30).read()
            assert b"MLflow" in page
            query = f"http://127.0.0.1:{address[1]}/api/2.0/mlflow/experiments/get?experiment_id={address[2]}"
            assert json.load(urllib.request.urlopen(query, timeout=30))["experiment"]["name"] == "melisma"
            interface.terminate()
            assert interface.wait(timeout=30) == 0
    with socket.socket() as free:
        # Nothing is left to answer once the command has ended.
        assert free.connect_ex(("127.0.0.1", int(address[1]))) != 0


def test_the_server_speaks_with_what_was_trained(copy: RepositoryCopy) -> None:
    assert "python -m pipeline.serve" in readme_commands()
    with copy.started("python", "-m", "pipeline.serve", "port=0") as server:
        address = re.search(r"http://127.0.0.1:\d+/", server.stdout.readline())
        assert address
        assert b"Melisma speaks" in urllib.request.urlopen(address[0], timeout=30).read()
        body = json.dumps({"seconds": 0.5, "seed": 1}).encode()
        asked = urllib.request.Request(f"{address[0]}v1/audio/speech", body, {"Content-Type": "application/json"})
        assert urllib.request.urlopen(asked, timeout=120).read(4) == b"RIFF"
        server.terminate()
        assert server.wait(timeout=60) == 0
