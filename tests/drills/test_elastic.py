"""A training under torchrun whose second machine goes away for good: two agents of this one, each with a rank."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.plumbing.files import read_csv
from tests.prepared_tokens import write_prepared_tokens
from tests.ranks import free_port

pytestmark = pytest.mark.long

N_STEPS = 150
TRAINING = [
    "model=tiny", "model.first_k_dense_replace=2", "trainer.sequence_length=32", "trainer.val_every_steps=100",
    "trainer.log_every_steps=1", f"trainer.max_steps={N_STEPS}", "trainer.checkpoint_every_steps=10",
    "trainer.batch_size=1", "trainer.global_batch=4",
]  # fmt: skip
TORCHRUN = [
    "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d",
    "--rdzv-id=drill",
]  # fmt: skip
# Seconds after which something does not come any more: a busy machine takes a minute to start a training.
PATIENCE = 900.0


def command(folder: Path, outputs: str, *launcher: str) -> list[str]:
    """Train in a folder, with a launcher's words before."""
    places = [f"paths.prepared={folder}/prepared", f"paths.outputs={folder}/{outputs}"]
    words = ["-m", "pipeline.train", *TRAINING, *places, f"tracking.uri=sqlite:///{folder}/mlflow.db"]
    return [sys.executable, *(["-m", *launcher] if launcher else []), *words]


class Agent:
    """One machine's torchrun."""

    def __init__(self, folder: Path, name: str, port: int) -> None:
        self._output = folder / f"{name}.txt"
        launcher = [*TORCHRUN, f"--rdzv-endpoint=127.0.0.1:{port}"]
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command(folder, "outputs", *launcher), "strategy=expert_parallel"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"},
            )

    def vanish(self) -> None:
        """As if the machine were switched off: torchrun goes, and what it has started."""
        if self.process.poll() is None:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            for process in (self.process.pid, *map(int, children)):
                os.kill(process, signal.SIGKILL)
            self.process.wait()

    def said(self) -> str:
        return self._output.read_text()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a state while it runs, however busy this machine is."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, f"Waited in vain for {PATIENCE:.0f} s. {self.said()}"
            time.sleep(0.2)


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def steps(folder: Path) -> list[int]:
    """The steps that a training has logged so far."""
    histories = list(folder.glob("outputs/resume/*/history.jsonl"))
    rows = [json.loads(line) for line in histories[0].read_text().splitlines()] if histories else []
    return [row["step"] for row in rows if "train/loss" in row]


def losses(outputs: Path) -> dict[str, float]:
    """Those of training, by step."""
    return {row["step"]: float(row["train/loss"]) for row in read_csv(outputs / "train" / "history.csv")}


def test_a_training_goes_on_without_a_machine_that_does_not_come_back(tmp_path: Path) -> None:
    write_prepared_tokens(tmp_path / "prepared")
    port = free_port()
    # The first one has the address that both meet at.
    agents = [Agent(tmp_path, "stays", port)]
    try:
        agents[0].until(lambda: listens(port))
        agents.append(Agent(tmp_path, "goes", port))
        agents[0].until(lambda: len(steps(tmp_path)) > 20)
        agents[1].vanish()
        assert agents[0].process.wait(PATIENCE) == 0, agents[0].said()
    finally:
        for agent in agents:
            agent.vanish()
    said = agents[0].said()
    assert "rank_1" in (tmp_path / "outputs" / "train" / "throughput.csv").read_text(), "it was never on two"
    assert "ERROR: Another rank has ended" in said
    assert "Going on with the interrupted training at step" in said
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "FINISHED"
    # One rank has taken as many windows a step as two did.
    subprocess.run([*command(tmp_path, "alone"), "strategy=single_device"], check=True, capture_output=True)
    alone = losses(tmp_path / "alone")
    assert len(alone) == N_STEPS
    assert losses(tmp_path / "outputs") == pytest.approx(alone, rel=1e-3)
