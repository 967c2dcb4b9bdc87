"""Which of a training's processes this one is, where SLURM started them."""

import os

from lightning.fabric.plugins.environments import SLURMEnvironment

# Below the ports that Linux hands out to connections.
FIRST_PORT, N_PORTS = 15_000, 17_000
STEPS_OF_A_JOB = 16


class SlurmTask(SLURMEnvironment):
    """One of several processes that `srun` started side by side, in one step of a job.

    Lightning's own class goes by what the job was allotted and what it is called. So it takes a batch script's process
    for one of many, and waits for the others; it takes those of `srun bash train.sh` for a training each; and it looks
    for the first of them on the job's first machine, where the step need not be.
    """

    def __init__(self) -> None:
        # Preemption listens to signals, and has the job queued again.
        super().__init__(auto_requeue=False)

    @staticmethod
    def detect() -> bool:
        """Whether `srun` started this process beside others."""
        return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1

    @property
    def main_address(self) -> str:
        """The machine of the first of them."""
        if "MASTER_ADDR" not in os.environ:
            nodes = os.environ["SLURM_STEP_NODELIST"]
            os.environ["MASTER_ADDR"] = "127.0.0.1" if self.n_nodes == 1 else self.resolve_root_node_address(nodes)
        return os.environ["MASTER_ADDR"]

    @property
    def main_port(self) -> int:
        """The same on all, and another one for a step of the same job beside this."""
        if "MASTER_PORT" not in os.environ:
            number = int(os.environ["SLURM_JOB_ID"]) * STEPS_OF_A_JOB + int(os.environ["SLURM_STEP_ID"])
            os.environ["MASTER_PORT"] = str(FIRST_PORT + number % N_PORTS)
        return int(os.environ["MASTER_PORT"])

    def world_size(self) -> int:
        """How many they are."""
        return int(os.environ["SLURM_STEP_NUM_TASKS"])

    @property
    def n_nodes(self) -> int:
        """Machines of the step."""
        return int(os.environ["SLURM_STEP_NUM_NODES"])

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Both are what this class told."""

    @staticmethod
    def _validate_srun_used() -> None:
        """Lightning warns of `srun` wherever it is installed."""

    @staticmethod
    def _validate_srun_variables() -> None:
        """Lightning refuses `srun --ntasks`."""


def allotted_tasks() -> int:
    """Tasks that a job was allotted, where `srun` did not start this process as one of them; else 1."""
    return 1 if "SLURM_STEP_ID" in os.environ else int(os.environ.get("SLURM_NTASKS", 1))
