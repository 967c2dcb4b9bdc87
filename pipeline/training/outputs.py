"""What a training leaves: its files, its figures and models in its run, and the words at its end."""

import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812

from lightning_modules.callbacks.best import BestCheckpoint
from lightning_modules.parallel.checkpoint_folder import remove
from pipeline.configuration.command_line import next_command, repeating_command
from pipeline.configuration.composed import REPOSITORY
from pipeline.plumbing.files import atomic_folder, atomic_write, link_or_copy, write_metrics
from pipeline.provenance.identity import TrainingIdentity
from pipeline.provenance.training import CHECKPOINT, begin_outputs, finish_outputs
from pipeline.sweeping.configuration import OF_TRAINING
from pipeline.sweeping.objective import figure
from pipeline.tokens.vocabulary import Vocabulary
from pipeline.tracking.config import anchored
from pipeline.tracking.history import HistoryLogger, last_values, write_history_tables
from pipeline.tracking.model_entry import CHECKPOINT as MODEL_OF_STEP
from pipeline.tracking.model_entry import ModelEntry
from pipeline.tracking.notes import TRAINING
from pipeline.tracking.run import TrackedRun
from pipeline.training.resume_folder import ResumeFolder

log = logging.getLogger(__name__)

# What experiments are compared by.
HEADLINE = ("train/loss", "val/loss")
# Steps that the store lists by their validation loss.
RANKED = 5


def leave_outputs(
    values: Mapping[str, Any],
    outputs: Path,
    identity: TrainingIdentity,
    resume: ResumeFolder,
    run: TrackedRun,
    trainer: L.Trainer,
) -> float:
    """Write and log all that a training leaves, and return the best validation loss.

    Until everything is in its place, the outputs say of no training that they are its.

    Args:
        values: the composed configuration.
        outputs: where to write.
        identity: which training it is.
        resume: the folder that its checkpoints lie in.
        run: that figures and files are logged to.
        trainer: that has trained to the end.
    """
    folder = outputs / "train"
    begin_outputs(folder)
    best = write_outputs(folder, resume, run, trainer)
    log_objective(run, outputs, values["sweep"]["objective"])
    log_checkpoints(run, trainer, folder / CHECKPOINT, (f"{values['data']['kind']} validation", identity.data))
    finish_outputs(folder, values, identity, run)
    run.describe(TRAINING, training_note(best, best_step(trainer), trainer.max_steps))
    return best


def write_outputs(folder: Path, resume: ResumeFolder, run: TrackedRun, trainer: L.Trainer) -> float:
    """Write the stage's files, and return the best validation loss."""
    assert isinstance(trainer.logger, HistoryLogger)
    rows = trainer.logger.rows
    losses = [row["val/loss"] for row in rows if "val/loss" in row]
    best = min(losses)
    metrics = last_values(rows) | {"val/loss": best, "val/loss_last": losses[-1]}
    tables = write_history_tables(rows, folder)
    copy_checkpoint(resume.best(best_step(trainer)), folder / "checkpoint.ckpt")
    write_metrics(folder, metrics, HEADLINE)
    run.log_metrics({"val/loss_best": best})
    for table in tables:
        run.log_artifact(table)
    run.log_artifact(folder / "metrics.json")
    return best


def log_objective(run: TrackedRun, outputs: Path, name: str) -> None:
    """Log what a sweep compares its jobs by, unless that is measured later."""
    objective = figure(outputs, name) if name in OF_TRAINING else None
    if objective is not None:
        run.log_objective(objective)


def log_checkpoints(run: TrackedRun, trainer: L.Trainer, kept: Path, dataset: tuple[str, str]) -> None:
    """Rank the validated steps by their loss, as models of the run; only the best one's checkpoint is kept."""
    assert isinstance(trainer.logger, HistoryLogger)
    # Rows count steps from 0.
    losses = {int(row["step"]) + 1: row["val/loss"] for row in trainer.logger.rows if "val/loss" in row}
    best = best_step(trainer)
    for rank, step in enumerate(sorted(losses, key=lambda step: (step != best, losses[step]))[:RANKED], start=1):
        entry = ModelEntry(
            MODEL_OF_STEP,
            f"step {step}",
            f"{run.run_id} {step}",
            kept if step == best else None,
            step=step,
            tags={"rank": str(rank)},
            metrics={"val/loss": losses[step]},
            dataset=dataset,
            home=anchored(kept, REPOSITORY),
        )
        run.log_model(entry)


def best_step(trainer: L.Trainer) -> int:
    """The optimizer steps behind the best checkpoint of a training that has ended."""
    (best,) = (callback for callback in trainer.callbacks if isinstance(callback, BestCheckpoint))  # type: ignore[attr-defined]
    assert best.step is not None, "every training is validated at its last step"
    return best.step


def copy_checkpoint(source: Path, target: Path) -> None:
    """Put a checkpoint, a file or a folder, in the place of whatever `target` was."""
    if source.is_dir() != target.is_dir():
        remove(target)
    if source.is_dir():
        with atomic_folder(target) as temporary:
            shutil.copytree(source, temporary, copy_function=link_or_copy, dirs_exist_ok=True)
    else:
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)


def say_result(outputs: Path, loss: float, vocabulary: Vocabulary, run: TrackedRun) -> None:
    """Say how the training ended, where it left what, and how to go on."""
    guessing = math.log(vocabulary.codebook_size)
    log.info(
        "Best validation loss: %.3f nats a token, %s guessing (%.3f). Checkpoint: %s. %sNext: %s",
        loss,
        "below" if loss < guessing else "no better than",
        guessing,
        outputs / "train" / CHECKPOINT,
        f"Run: {run.run_id}. " if run.run_id else "",
        next_command("convert_checkpoint", outputs),
    )


def training_note(loss: float, step: int, n_steps: int) -> str:
    """What the training adds to the description of its run: how it ended, and the command that repeats it."""
    again = repeating_command()
    return f"Best validation loss **{loss:.3f}** nats a token, at step {step} of {n_steps}.\n\n    {again}"
