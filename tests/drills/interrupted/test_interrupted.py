"""A quick part of the drill: a training killed at a few of its file operations, and damaged after a kill."""

from pathlib import Path

import pytest

from tests.drills.interrupted.damage import damage_what_was_left
from tests.drills.interrupted.kills import kill_at_file_operations
from tests.drills.interrupted.stage import Stage, compare
from tests.prepared_tokens import write_prepared_tokens

TRAINING = (
    "model=tiny", "tracking=none", "trainer.max_steps=4", "trainer.sequence_length=32", "trainer.val_every_steps=2",
    "trainer.log_every_steps=1", "trainer.checkpoint_every_steps=1", "paths.prepared={folder}/prepared",
    "paths.outputs={folder}/outputs",
)  # fmt: skip


@pytest.fixture
def training(tmp_path: Path) -> Stage:
    write_prepared_tokens(tmp_path / "input" / "prepared")
    return Stage("pipeline.train", TRAINING, ("outputs/train",), tmp_path / "input")


def test_a_killed_training_comes_back_to_equal_bytes(training: Stage, tmp_path: Path) -> None:
    trials = list(kill_at_file_operations(training, tmp_path / "work", n=3, seed=2))
    assert [trial for trial in trials if trial.lost] == []
    assert len(trials) == 3


def test_a_damaged_training_comes_back_to_equal_bytes(training: Stage, tmp_path: Path) -> None:
    """Killed in the middle, then one of what it left is damaged: a checkpoint at its end, and its description."""
    trials = list(damage_what_was_left(training, tmp_path / "work", kill_at=40, left="outputs/resume", n=2))
    assert [trial for trial in trials if trial.lost] == []
    assert len(trials) == 2


def test_a_difference_is_told() -> None:
    assert compare({"a": "1"}, {"a": "1"}) == ""
    assert compare({"a": "1", "b": "1"}, {"b": "2", ".b.partial": "3"}) == (
        "missing: a; left over: .b.partial; different: b"
    )
