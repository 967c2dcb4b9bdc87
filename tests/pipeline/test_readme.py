"""Every command of the README, in a copy of the repository."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.repository_copy import REPOSITORY, RepositoryCopy

# Commands that would start this test anew, change the machine, or were run by the tests above.
NOT_RUN_HERE = {
    "make test": "is what runs this",
    "make lock": "asks the package index",
    "make lint": "continuous integration runs it",
    "source .venv/bin/activate": "the copy's commands find the environment on PATH",
    "dvc exp run -S model=tiny -S optimizer.lr=1e-3": "test_experiments_switch_groups_and_leaves",
    "python -m pipeline.train -m model=tiny,small optimizer.lr=1e-3,3e-4": "test_a_sweep_keeps_its_jobs_apart…",
    "dvc exp show": "test_experiments_switch_groups_and_leaves",
    "dvc metrics diff": "test_experiments_switch_groups_and_leaves",
}


def readme_commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "README.md").read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def recordings(copy: RepositoryCopy) -> Path:
    """A folder of good speech and one broken file."""
    folder = copy.root / "recordings"
    folder.mkdir()
    for path in sorted((copy.root / "data/cache").glob("espeak-*/shard_000/*.wav"))[:15]:
        shutil.copy(path, folder)
    (folder / "broken.wav").write_text("not audio")
    return folder


@pytest.mark.parametrize("command", [c for c in readme_commands() if c not in NOT_RUN_HERE and c != "make ui"])
def test_the_readme_s_commands_work(copy: RepositoryCopy, recordings: Path, command: str) -> None:
    if command.startswith("make"):
        # The environment of these tests stands for the one that make would build.
        (copy.root / ".venv").mkdir(exist_ok=True)
        (copy.root / ".venv/installed").touch()
    overrides = "data.screening.max_rejected_fraction=0.2"
    if "data=folder" in command:
        command += f" {'-S ' if command.startswith('dvc') else ''}{overrides}"
        command += " tracking=none" if command.startswith("python") else ""
    output = copy.run(*command.replace("/path/to/audio", str(recordings)).split())
    assert "Traceback" not in output
    if "data=folder" in command:
        manifest = (copy.root / "data/prepared/manifest.csv").read_text()
        assert re.search(r"broken.wav.*rejected,\S", manifest)
    if command.startswith("dvc"):
        copy.run("git", "checkout", "-q", ".")


def test_the_interface_opens(copy: RepositoryCopy) -> None:
    assert "make ui" in readme_commands()
    command = copy.run("make", "-n", "--no-print-directory", "ui").strip().splitlines()[-1]
    assert "--host 127.0.0.1" in command
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(command.replace("5000", str(port)).split(), cwd=copy.root, start_new_session=True)
    try:
        for _ in range(120):
            with contextlib.suppress(urllib.error.URLError):
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                break
            time.sleep(0.5)
        assert b"MLflow" in page
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
