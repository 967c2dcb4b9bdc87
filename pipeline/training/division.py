"""How a training is divided among its ranks, and whether each has memory for its share."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_modules.configuration import TrainerConfig
from lightning_modules.parallel.configuration import ParallelConfig, mesh_sizes
from lightning_modules.trainer import n_ranks, n_readers
from pipeline.configuration.settings import read_settings
from pipeline.configuration.strategy import read_strategy
from pipeline.planning.admission import memory_of_a_rank, refuse_what_cannot_fit
from pipeline.planning.composed import read_training
from pipeline.planning.settings import Layout


@dataclass(frozen=True)
class Division:
    """What each rank does of a training.

    Attributes:
        trainer: what is configured, with as many micro-batches as make up the batch of a step on these ranks.
        strategy: the mesh of ranks; None: one device.
        n_ranks: processes of the training.
        n_readers: of these, where those that share windows count as one.
    """

    trainer: TrainerConfig
    strategy: ParallelConfig | None
    n_ranks: int
    n_readers: int

    def settled(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The composed configuration, with the micro-batches of these ranks."""
        portions = {"accumulate_grad_batches": self.trainer.accumulate_grad_batches}
        return {**values, "trainer": {**values["trainer"], **portions}}


def divide(values: Mapping[str, Any]) -> Division:
    """Divide the training that is configured among the processes there are.

    Raises:
        ValueError: the processes, the mesh and the batch of a step do not fit one another.
    """
    trainer = read_settings(TrainerConfig, values["trainer"], "trainer")
    strategy = read_strategy(values["strategy"])
    ranks, readers = (count(strategy, trainer.accelerator) for count in (n_ranks, n_readers))
    trainer = replace(trainer, accumulate_grad_batches=trainer.n_accumulated(readers))
    return Division(trainer, strategy, ranks, readers)


def check_memory(values: Mapping[str, Any], prepared: Path, division: Division) -> None:
    """Refuse a training that cannot fit the memory of its ranks, before any is asked for.

    Args:
        values: the composed configuration, with the micro-batches of these ranks.
        prepared: the folder of prepared data.
        division: who does what.

    Raises:
        ValueError: naming what needs how much, and the remedies.
    """
    strategy = division.strategy or ParallelConfig()
    ranks_here = division.n_ranks // strategy.nodes
    layout = Layout.of_mesh(mesh_sizes(strategy, division.n_ranks), ranks_here)
    available = memory_of_a_rank(division.trainer.accelerator, ranks_here)
    refuse_what_cannot_fit(read_training(values, prepared), layout, available)
