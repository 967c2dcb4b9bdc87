"""Which of a training's processes this one is."""

import os
from dataclasses import dataclass

# Set by launchers of distributed training.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def rank_of_this_process() -> int:
    """The rank that a launcher gave this process; 0 without a launcher."""
    return next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)


@dataclass(frozen=True)
class Node:
    """The machine that this process runs on, as its launcher numbers it.

    Attributes:
        number: of the machine, from 0.
        n_nodes: machines of the training.
        local_rank: of this process on its machine.
    """

    number: int
    n_nodes: int
    local_rank: int

    @classmethod
    def of_this_process(cls) -> "Node":
        """As torchrun or Slurm says; alone without either."""

        def read(*names: str, default: str) -> int:
            return int(next((os.environ[name] for name in names if name in os.environ), default))

        return cls(
            read("GROUP_RANK", "SLURM_NODEID", default="0"),
            read("GROUP_WORLD_SIZE", "SLURM_STEP_NUM_NODES", default="1"),
            read("LOCAL_RANK", "SLURM_LOCALID", default="0"),
        )
