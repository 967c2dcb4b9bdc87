"""The folder an interrupted training goes on from: outside DVC's outputs, which DVC deletes before it runs a stage.

`<root>/<fingerprint>/` belongs to the training whose identity has that fingerprint; trainings with other settings leave
it alone. A checkpoint to go on from is the truth about its step: it holds, beside weights and optimizer, the history
until then, the tracked run, and which checkpoint is the best so far. It is written after that one, and removed before
it. Nothing else in the folder is needed to go on: `training.json` tells people what it is, and `history.jsonl` shows
them the course of a training under way. Several trainings share the root where DVC runs queued experiments at once:
`<fingerprint>.lock` beside the folder is held by the one process that writes there.
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning_modules.callbacks.best import BEST, BestCheckpoint
from lightning_modules.callbacks.resume import STEP
from lightning_modules.callbacks.saves import checkpoints_of, is_committed
from lightning_modules.parallel.checkpoint_folder import META_FILE, REMOVED, clean, is_sharded, remove
from pipeline.checkpoints.files.pickle_file import open_pickle
from pipeline.checkpoints.integrity import verify_bytes
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError
from pipeline.plumbing.files import write_json
from pipeline.plumbing.fingerprint import fingerprint
from pipeline.tracking.history import TRACKED_RUN
from pipeline.training.interrupted import DESCRIPTION, lock_of, remove_training
from pipeline.training.other_trainings import say_others

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResumePoint:
    """Where an interrupted training goes on.

    Attributes:
        step: optimizer steps done.
        checkpoint: a file or a folder.
        run_id: the tracked run it belongs to, if any.
    """

    step: int
    checkpoint: Path
    run_id: str | None


class ResumeFolder:
    """Checkpoints and history of one training.

    Args:
        root: holds the folders of all trainings.
        identity: what the training is determined by: only one with equal values goes on from here.
        name: what the training is called in listings.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any], name: str) -> None:
        self.root = root
        self.identity = identity
        self.name = name
        self.path = root / fingerprint(identity)[:16]

    @property
    def lock(self) -> Path:
        """Held by the process that writes to the folder."""
        return lock_of(self.path)

    @property
    def history(self) -> Path:
        """One JSON object a line: what was logged, and at which step; for people to watch."""
        return self.path / "history.jsonl"

    def find(self) -> ResumePoint | None:
        """The newest step from which the training can go on; None: it begins. Nothing is changed.

        Raises:
            DamagedCheckpointError: when there are checkpoints, and none is whole.
        """
        steps = checkpoints_of(self.path, STEP)
        problems = []
        for step, path in reversed(steps.items()):
            try:
                point = self._examine(step, path)
            except (OSError, ValueError) as error:
                problems.append(str(error))
                continue
            for problem in problems:
                log.warning("%s Going on from the checkpoint before it, step %d.", problem, step)
            return point
        if problems:
            raise DamagedCheckpointError(
                f"None of the {len(problems)} checkpoints in {self.path} is whole, the newest because: {problems[0]} "
                "Put one back from elsewhere, or remove the folder to begin this training anew."
            )
        return None

    def begin(self, point: ResumePoint | None) -> None:
        """Make the folder ready for a training that goes on from `point`, or begins.

        What is newer than `point` is removed, since the training will write it again.
        """
        # Another process may be removing the same.
        for doomed in self.root.glob("*" + REMOVED):
            shutil.rmtree(doomed, ignore_errors=True)
        self.path.mkdir(parents=True, exist_ok=True)
        clean(self.path)
        last = point.step if point else -1
        for kind in (STEP, BEST):
            for step, path in reversed(checkpoints_of(self.path, kind).items()):
                if step > last:
                    remove(path)
        begun = datetime.now().astimezone().isoformat(timespec="seconds")
        write_json(self.path / DESCRIPTION, {"name": self.name, "begun": begun, "identity": self.identity})
        say_others(self.root, self.path, self.identity, begins_anew=point is None)

    def best(self, step: int) -> Path:
        """The best checkpoint by validation loss, that of `step`: a file or a folder.

        Raises:
            FileNotFoundError: when it is not there.
        """
        path = checkpoints_of(self.path, BEST).get(step)
        if path is None or not is_committed(path):
            raise FileNotFoundError(f"{self.path} does not hold the best checkpoint, of step {step}.")
        return path

    def remove(self) -> None:
        """Delete the folder: the training is done. Killed meanwhile, it is gone all the same."""
        remove_training(self.path)

    def _examine(self, step: int, path: Path) -> ResumePoint:
        """Read a checkpoint and the best one it refers to, all of them.

        Raises:
            OSError, ValueError: when one of them is not whole; the message is a sentence that names it.
        """
        if not is_committed(path):
            raise DamagedCheckpointError(f"{path} is not whole.")
        described = _verified(path)
        try:
            best = described["callbacks"][BestCheckpoint.__name__]["step"]
            run_id = described[TRACKED_RUN]
            if described["global_step"] != step:
                raise ValueError(f"it is of step {described['global_step']}")
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedCheckpointError(f"{path} is no checkpoint of this training ({error!r}).") from error
        if best is not None:
            _verified(self.best(best))
        return ResumePoint(step, path, run_id)


def _verified(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, after all its bytes were held against their checksums."""
    verify_bytes(path)
    return open_pickle(path / META_FILE if is_sharded(path) else path)
