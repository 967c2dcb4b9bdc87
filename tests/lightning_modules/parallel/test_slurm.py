"""What a process makes of SLURM's environment, which is here as slurmd and srun 22.05 set it."""

import os

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment

from lightning_modules.parallel.launch import cluster_environment, launched_processes
from lightning_modules.parallel.slurm import SlurmTask, allotted_tasks

ALLOCATION = {"SLURM_JOB_ID": "5", "SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
# The batch script's own process bears the number of the first task.
BATCH = ALLOCATION | {"SLURM_JOB_NAME": "train.sh", "SLURM_PROCID": "0", "SLURM_NTASKS_PER_NODE": "2"}
STEP = ALLOCATION | {
    "SLURM_JOB_NAME": "bash", "SLURM_STEP_ID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "node[2-3]", "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
}  # fmt: skip
ONE_MACHINE = STEP | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_TASKS_PER_NODE": "2"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "MASTER_", "TORCHELASTIC"))]:
        monkeypatch.delenv(name)

    def put(values: dict[str, str]) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            # Taken back after the test, whoever sets them.
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)

    return put


@pytest.mark.parametrize("values", [{}, ALLOCATION, BATCH, STEP | {"SLURM_STEP_NUM_TASKS": "1"}])
def test_a_process_that_srun_did_not_start_beside_others_is_alone(environment, values: dict[str, str]) -> None:
    environment(values)
    assert launched_processes() is None
    assert isinstance(cluster_environment(), LightningEnvironment)


@pytest.mark.parametrize(
    ("values", "tasks"), [({}, 1), (ALLOCATION, 4), (BATCH, 4), (STEP | {"SLURM_STEP_NUM_TASKS": "1"}, 1)]
)
def test_tasks_that_nobody_started_are_counted(environment, values: dict[str, str], tasks: int) -> None:
    environment(values)
    assert allotted_tasks() == tasks


def test_a_task_is_one_of_its_step(environment) -> None:
    environment(STEP)
    assert launched_processes() == ("SLURM", (2, 2))
    task = cluster_environment()
    assert isinstance(task, SlurmTask)
    assert (task.world_size(), task.global_rank(), task.local_rank(), task.node_rank()) == (4, 3, 1, 1)
    assert task.main_address == "node2"
    assert not task.auto_requeue


def test_steps_of_one_job_and_jobs_of_one_machine_meet_at_different_ports(environment) -> None:
    ports = []
    for job, step in (("5", "0"), ("5", "1"), ("6", "0")):
        environment(ONE_MACHINE | {"SLURM_JOB_ID": job, "SLURM_STEP_ID": step})
        assert SlurmTask().main_address == "127.0.0.1"
        ports.append(SlurmTask().main_port)
    assert len(set(ports)) == 3
    assert all(1024 < port < 32768 for port in ports)


def test_what_a_user_sets_stays(environment, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(STEP)
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "4444")
    assert (SlurmTask().main_address, SlurmTask().main_port) == ("10.0.0.1", 4444)


def test_torchrun_within_a_step_counts(environment) -> None:
    environment(STEP | TORCHRUN)
    assert launched_processes() == ("torchrun", (2, 2))
    assert isinstance(cluster_environment(), TorchElasticEnvironment)


def test_machines_with_different_numbers_of_processes_are_refused(environment) -> None:
    environment(STEP | {"SLURM_STEP_TASKS_PER_NODE": "3,1"})
    with pytest.raises(ValueError, match="4 processes on 2 machines, not as many on each; .* --ntasks-per-node"):
        launched_processes()
