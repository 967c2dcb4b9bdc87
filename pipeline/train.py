"""Stage 2: token shards to a trained decoder, on one device or many.

Reads data/prepared, and writes the best checkpoint by validation loss and the course of training to outputs/train.
An interrupted training goes on with the same command.

  python -m pipeline.train
  python -m pipeline.train model=tiny optimizer.lr=1e-3 trainer.max_steps=100
  python -m pipeline.train 'feed.mixture={data/prepared: 0.7, data/prepared_b: 0.3}'
  python -m pipeline.train -m model=tiny,small optimizer.lr=1e-3,3e-4
  torchrun --nproc-per-node 8 -m pipeline.train strategy=expert_parallel strategy.ep=8 trainer=gpu precision=bf16
"""

import math
from typing import Any

from lightning_modules.kept_signals import signals_kept
from pipeline.configuration.composed import Folders, is_multirun
from pipeline.entry.command import command
from pipeline.plumbing.rank import rank_of_this_process


@command(
    groups=(
        "data", "codec", "model", "optimizer", "schedule", "trainer", "feed", "precision", "strategy", "tracking",
        "experiment", "cluster", "debug", "sweep",
    ),
    writes=("outputs",),
)  # fmt: skip
def main(values: dict[str, Any], folders: Folders) -> float:
    """Train, and return the best validation loss, or what a sweep compares its jobs by."""
    with signals_kept():
        return trained(values, folders)


def trained(values: dict[str, Any], folders: Folders) -> float:
    """Train, unless a job of a sweep has been."""
    # Torch and all that stands on it take seconds to import: mistakes are told before.
    from pipeline.provenance.training import is_trained
    from pipeline.sweeping.objective import job_objective
    from pipeline.training.train import train

    # What came after the training may have failed, or another figure is asked for.
    is_done = is_multirun() and is_trained(folders.outputs / "train", values)
    loss = math.nan if is_done else train(values, folders)
    return job_objective(values, folders.outputs) if is_multirun() and rank_of_this_process() == 0 else loss


if __name__ == "__main__":
    main()
