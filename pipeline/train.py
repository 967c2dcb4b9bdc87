"""Stage 2: token shards to a trained decoder, on one device or many.

Reads data/prepared, and writes the best checkpoint by validation loss and the course of training to outputs/train.
An interrupted training goes on with the same command.

  python -m pipeline.train
  python -m pipeline.train model=tiny optimizer.lr=1e-3 trainer.max_steps=100
  python -m pipeline.train -m model=tiny,small optimizer.lr=1e-3,3e-4
  torchrun --nproc-per-node 8 -m pipeline.train strategy=expert_parallel strategy.ep=8 trainer=gpu precision=bf16
"""

from typing import Any

from pipeline.configuration.composed import Folders
from pipeline.entry.command import command


@command(
    groups=(
        "data", "codec", "model", "optimizer", "schedule", "trainer", "precision", "strategy", "tracking", "experiment",
        "cluster", "debug",
    ),
    writes=("outputs",),
)  # fmt: skip
def main(values: dict[str, Any], folders: Folders) -> float:
    """Train, and return the best validation loss, which sweeps minimise."""
    # Torch and all that stands on it take seconds to import: mistakes are told before.
    from pipeline.training.train import train

    return train(values, folders)


if __name__ == "__main__":
    main()
