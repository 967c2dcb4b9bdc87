"""The folder an interrupted training goes on from: outside DVC's outputs, which DVC deletes before it runs a stage."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_modules.callbacks.resume import LAST_CHECKPOINT
from lightning_modules.trainer import BEST_CHECKPOINT
from pipeline.files import read_json, write_json

log = logging.getLogger(__name__)


def fingerprint(values: Mapping[str, Any]) -> str:
    """A digest of everything that decides what a training computes."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class ResumeFolder:
    """Checkpoints and history of a training under way.

    Args:
        path: the folder; made when absent, emptied when it belongs to another training.
        identity: what the training is determined by. Only a training with equal values goes on from here.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._state_file = path / "training.json"
        digest = fingerprint(identity)
        if path.exists() and self._state().get("fingerprint") != digest:
            log.info("%s holds a training with other settings or data; starting anew.", path)
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        self._write_state(fingerprint=digest)

    @property
    def last(self) -> Path | None:
        """The checkpoint to go on from, if the training was interrupted after its first one."""
        path = self.path / LAST_CHECKPOINT
        return path if path.exists() else None

    @property
    def best(self) -> Path:
        """The best checkpoint so far, by validation loss."""
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
