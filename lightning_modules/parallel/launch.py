"""How many processes a training has, by whoever started them."""

import os
from typing import NamedTuple

import torch
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    TorchElasticEnvironment,
)

from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.parallel.slurm import SlurmTask


class Processes(NamedTuple):
    """One process a device."""

    nodes: int
    per_node: int

    @property
    def world_size(self) -> int:
        """Ranks."""
        return self.nodes * self.per_node


def launched_processes() -> tuple[str, Processes] | None:
    """Which launcher started this process, and how many others beside it; None: it was started alone.

    Raises:
        ValueError: SLURM started more on one machine than on another.
    """
    if TorchElasticEnvironment.detect():
        world_size, per_node = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        return "torchrun", Processes(world_size // per_node, per_node)
    if SlurmTask.detect():
        task = SlurmTask()
        if task.world_size() % task.n_nodes or "," in os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""):
            raise ValueError(
                f"SLURM started {task.world_size()} processes on {task.n_nodes} machines, not as many on each; ask for "
                "them with --ntasks-per-node."
            )
        return "SLURM", Processes(task.n_nodes, task.world_size() // task.n_nodes)
    return None


def cluster_environment() -> ClusterEnvironment:
    """What tells Lightning of the other processes."""
    for environment in (TorchElasticEnvironment, SlurmTask):
        if environment.detect():
            return environment()
    return LightningEnvironment()


def find_processes(config: ParallelConfig, accelerator: str) -> Processes:
    """The processes that a launcher started or, without one, that Lightning is to start on this machine.

    Raises:
        ValueError: the launcher started others than `config` names, or none did and there is more than one machine.
    """
    launched = launched_processes()
    if launched is None:
        if config.nodes > 1:
            raise ValueError(
                f"strategy.nodes is {config.nodes}, but nothing has started processes on other machines; start the "
                "training with torchrun on each of them, or through SLURM."
            )
        available = max(torch.cuda.device_count(), 1) if accelerator == "gpu" else 1
        return Processes(1, config.gpus_per_node or available)
    launcher, processes = launched
    for name, wanted, unset, started in (
        ("nodes", config.nodes, 1, processes.nodes),
        ("gpus_per_node", config.gpus_per_node, None, processes.per_node),
    ):
        if wanted not in (unset, started):
            raise ValueError(f"strategy.{name} is {wanted}, but {launcher} started {started}; leave it out, or agree.")
    return processes


def refuse_other_processes() -> None:
    """Make sure that a training of a single device has no processes beside it, which would all do the same.

    Raises:
        ValueError: when a launcher started several.
    """
    launched = launched_processes()
    if launched is not None and launched[1].world_size > 1:
        raise ValueError(
            f"{launched[0]} started {launched[1].world_size} processes, but strategy.kind is single_device; "
            "add strategy=expert_parallel."
        )
