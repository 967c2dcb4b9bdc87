import time

import pytest
from torch.distributed import HashStore

from pipeline.plumbing.rank import Node
from pipeline.tracking.node_metrics import other_nodes_metrics
from pipeline.tracking.run import NullRun


class Noted(NullRun):
    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def log_metrics(self, metrics, step=None) -> None:
        self.metrics |= metrics


def test_the_first_process_logs_what_other_machines_post():
    store, run = HashStore(), Noted()
    with (
        other_nodes_metrics(store, Node(0, 3, 0), 0, run, interval=0.05),
        other_nodes_metrics(store, Node(2, 3, 0), 4, NullRun(), interval=0.05),
        other_nodes_metrics(store, Node(1, 3, 1), 3, NullRun(), interval=0.05),
    ):
        deadline = time.monotonic() + 20
        while not run.metrics and time.monotonic() < deadline:
            time.sleep(0.05)
    assert 0 <= run.metrics["system/node_2/cpu_utilization_percentage"] <= 100
    assert all(name.startswith("system/node_2/") for name in run.metrics)


def test_one_machine_has_no_others():
    run = Noted()
    with other_nodes_metrics(HashStore(), Node(0, 1, 0), 0, run, interval=0.01):
        time.sleep(0.05)
    assert run.metrics == {}


@pytest.mark.parametrize(
    ("environment", "node"),
    [
        ({}, Node(0, 1, 0)),
        ({"GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2", "LOCAL_RANK": "3"}, Node(1, 2, 3)),
        ({"SLURM_NODEID": "3", "SLURM_STEP_NUM_NODES": "4", "SLURM_LOCALID": "0"}, Node(3, 4, 0)),
    ],
)
def test_launchers_say_which_machine_this_is(monkeypatch, environment, node):
    for name in (
        "GROUP_RANK",
        "GROUP_WORLD_SIZE",
        "LOCAL_RANK",
        "SLURM_NODEID",
        "SLURM_STEP_NUM_NODES",
        "SLURM_LOCALID",
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Node.of_this_process() == node
