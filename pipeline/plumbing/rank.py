"""Which of a training's processes this one is."""

import os

# Set by launchers of distributed training.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def rank_of_this_process() -> int:
    """The rank that a launcher gave this process; 0 without a launcher."""
    return next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)
