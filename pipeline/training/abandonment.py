"""A training that nobody waits for any more."""

from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812


class EndWithFolder(L.Callback):
    """Ends a training whose outputs folder is gone.

    `dvc queue stop --kill` kills a queued experiment and removes its folder, but not the stage that it runs: that would
    go on, hold its GPU, and in the end find no place to write to.

    Args:
        folder: what the training is to write to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Look before every step.

        Raises:
            FileNotFoundError: when the folder is gone.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"{self.folder} is gone, as when a queued experiment is killed; queued again, it goes on from the "
                "last checkpoint."
            )
