"""Trainings killed at moments by chance, and what they leave damaged: the next run comes back to equal bytes."""

import random
from pathlib import Path

from tests.drills.interrupted.damage import damage_what_was_left
from tests.drills.interrupted.kills import kill_at_random_moments
from tests.drills.interrupted.stage import Stage, Trial
from tests.drills.tally import Family, LostError, Tally
from tests.prepared_tokens import write_prepared_tokens

TRAINING = (
    "model=tiny", "tracking=none", "trainer.max_steps=4", "trainer.sequence_length=32", "trainer.val_every_steps=2",
    "trainer.log_every_steps=1", "trainer.checkpoint_every_steps=1", "paths.prepared={folder}/prepared",
    "paths.outputs={folder}/outputs",
)  # fmt: skip


def trainings(root: Path, chance: random.Random, seconds: float) -> list[Tally]:
    """Kill trainings at random moments; and kill one, and damage each of the files that it left in each way."""
    write_prepared_tokens(root / "input" / "prepared")
    stage = Stage("pipeline.train", TRAINING, ("outputs/train",), root / "input")
    kills = Family("training killed at a random moment", chance, seconds / 2)
    for trial in kill_at_random_moments(stage, root / "kills", n=10**6, seed=chance.randrange(10**6)):
        kills.attempt(trial.fault, lambda: _require(trial))  # noqa: B023 - called now
        if not kills.has_time:
            break
    damages = Family("damaged state of a killed training", chance, seconds / 2)
    for trial in damage_what_was_left(stage, root / "damages", kill_at=40, left="outputs/resume"):
        damages.attempt(trial.fault, lambda: _require(trial))  # noqa: B023 - called now
        if not damages.has_time:
            break
    return [kills.tally, damages.tally]


def _require(trial: Trial) -> None:
    if trial.lost:
        raise LostError(trial.lost)
