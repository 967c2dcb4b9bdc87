"""The folder an interrupted training goes on from: outside DVC's outputs, which DVC deletes before it runs a stage."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_modules.callbacks.resume import last_checkpoint
from lightning_modules.parallel.checkpoint_folder import clean
from lightning_modules.trainer import BEST_CHECKPOINT
from pipeline.plumbing.files import read_json, write_json
from pipeline.plumbing.fingerprint import fingerprint

log = logging.getLogger(__name__)

# What decides the outcome of a training, beside the data.
DECISIVE_GROUPS = ("model", "optimizer", "schedule", "precision", "seed")
# Settings of the trainer that decide where it runs, in which portions, how often it saves, and what it does about steps
# gone wrong: any may change when an interrupted training goes on. What the portions add up to is decisive.
INCIDENTAL = (
    "accelerator",
    "batch_size",
    "accumulate_grad_batches",
    "checkpoint_every_steps",
    "keep_last",
    "anomalies",
)


def training_identity(values: Mapping[str, Any], data: Any, world_size: int) -> dict[str, Any]:
    """What a training is determined by: not its strategy, nor how ranks divide the batch of an optimizer step.

    Args:
        values: the whole configuration.
        data: what the tokens are told from others by.
        world_size: ranks.
    """
    trainer = values["trainer"]
    identity = {name: values[name] for name in DECISIVE_GROUPS}
    identity["trainer"] = {name: value for name, value in trainer.items() if name not in INCIDENTAL}
    identity["global_batch"] = world_size * trainer["batch_size"] * trainer["accumulate_grad_batches"]
    identity["data"] = data
    return identity


class ResumeFolder:
    """Checkpoints and history of a training under way.

    Args:
        path: the folder, which `prepare` makes ready.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state_file = path / "training.json"

    def prepare(self, identity: Mapping[str, Any]) -> None:
        """Make the folder ready, on one rank: begin one, or tidy up that of an interrupted training.

        Args:
            identity: what the training is determined by. Only a training with equal values goes on from here; the
                folder of another is emptied.
        """
        digest = fingerprint(identity)
        if self.path.exists() and self._state().get("fingerprint") != digest:
            log.info("%s holds a training with other settings or data; starting anew.", self.path)
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        clean(self.path)
        self._write_state(fingerprint=digest)

    @property
    def last(self) -> Path | None:
        """The checkpoint to go on from, if the training was interrupted after its first one: a file or a folder."""
        return last_checkpoint(self.path)

    @property
    def best(self) -> Path:
        """The best checkpoint so far, by validation loss: a file or a folder."""
        return self.path / BEST_CHECKPOINT

    @property
    def history(self) -> Path:
        """One JSON object a line: what was logged, and at which step."""
        return self.path / "history.jsonl"

    @property
    def run_id(self) -> str | None:
        """The tracked run that the interrupted training belongs to."""
        return self._state().get("run_id") if self.last is not None else None

    def remember_run(self, run_id: str | None) -> None:
        """Note the tracked run, so that a resumed training goes on with it."""
        self._write_state(run_id=run_id)

    def remove(self) -> None:
        """Delete the folder: the training is done."""
        shutil.rmtree(self.path)

    def _state(self) -> dict[str, Any]:
        return read_json(self._state_file) if self._state_file.exists() else {}

    def _write_state(self, **changes: str | None) -> None:
        write_json(self._state_file, self._state() | changes)
