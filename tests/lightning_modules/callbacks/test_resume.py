from pathlib import Path

import pytest
import torch

from lightning_modules.callbacks.best import BestCheckpoint
from lightning_modules.callbacks.final_validation import FinalValidation
from lightning_modules.callbacks.resume import ResumeCheckpoint, prune, step_checkpoints
from lightning_modules.configuration import TrainerConfig
from lightning_modules.trainer import build_trainer


@pytest.mark.parametrize("accumulate", [1, 3])
def test_one_checkpoint_every_so_many_optimizer_steps(fit_scripted, tmp_path: Path, accumulate: int) -> None:
    callback = ResumeCheckpoint(tmp_path, every_n_steps=2)
    events = fit_scripted([callback], max_steps=5, val_every_steps=7, accumulate=accumulate)
    assert [step for event, step in events if event == "saved"] == [2, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002.ckpt", "step-00000004.ckpt"]
    checkpoint = torch.load(tmp_path / "step-00000004.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4
    assert checkpoint["state_dict"]["weight"] == 4
    assert checkpoint["optimizer_states"]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_validation_comes_before_the_checkpoint_of_its_step(fit_scripted, tmp_path: Path, accumulate: int) -> None:
    callback = ResumeCheckpoint(tmp_path, every_n_steps=2)
    events = fit_scripted([callback], max_steps=5, val_every_steps=4, accumulate=accumulate)
    assert events == [("saved", 2), ("validated", 4), ("saved", 4)]


@pytest.mark.parametrize("val_every_steps", [4, 100])
def test_the_last_steps_validation_comes_first_too(fit_scripted, tmp_path: Path, val_every_steps: int) -> None:
    callbacks = [FinalValidation(), ResumeCheckpoint(tmp_path, every_n_steps=6)]
    events = fit_scripted(callbacks, max_steps=6, val_every_steps=val_every_steps)
    assert events[-2:] == [("validated", 6), ("saved", 6)]


def test_the_checkpoint_knows_the_best_one_of_its_own_step(fit_scripted, tmp_path: Path) -> None:
    losses = {2: 1.0, 4: 0.5, 6: 0.8}

    def fit(**options: object) -> None:
        callbacks = [BestCheckpoint(tmp_path), ResumeCheckpoint(tmp_path, every_n_steps=4)]
        fit_scripted(callbacks, max_steps=6, val_every_steps=2, val_losses=losses, **options)

    with pytest.raises(ConnectionAbortedError):
        fit(interrupt_at=5)
    assert step_checkpoints(tmp_path)[-1] == tmp_path / "step-00000004.ckpt"
    fit(resume=step_checkpoints(tmp_path)[-1])
    assert torch.load(tmp_path / "best-00000004.ckpt", weights_only=True)["global_step"] == 4


def test_the_trainer_saves_the_best_checkpoint_first(tmp_path: Path) -> None:
    config = TrainerConfig("cpu", 4, 1, 8, 1, None, 2, 1, 2, False)
    order = [type(callback) for callback in build_trainer(config, None, "fp32", False, tmp_path).callbacks]
    assert order.index(BestCheckpoint) < order.index(ResumeCheckpoint)


def test_going_on_counts_from_the_checkpoint(fit_scripted, tmp_path: Path) -> None:
    def fit(**options: object) -> list[tuple[str, int]]:
        callbacks = [ResumeCheckpoint(tmp_path, every_n_steps=3)]
        return fit_scripted(callbacks, max_steps=7, val_every_steps=100, **options)

    with pytest.raises(ConnectionAbortedError):
        fit(interrupt_at=5)
    assert [step for event, step in fit(resume=step_checkpoints(tmp_path)[-1]) if event == "saved"] == [6]
    assert torch.load(tmp_path / "step-00000006.ckpt", weights_only=True)["state_dict"]["weight"] == 6


@pytest.mark.parametrize("keep_last", [1, 3])
def test_the_last_few_checkpoints_stay(fit_scripted, tmp_path: Path, keep_last: int) -> None:
    callback = ResumeCheckpoint(tmp_path, every_n_steps=1, keep_last=keep_last)
    fit_scripted([callback], max_steps=5, val_every_steps=100)
    kept = [f"step-{step:08d}.ckpt" for step in range(1, 6)][-keep_last:]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept


def test_only_whole_checkpoints_are_gone_on_from(tmp_path: Path) -> None:
    assert step_checkpoints(tmp_path) == []
    (tmp_path / "step-00000002.ckpt").write_bytes(b"whole")
    (tmp_path / "step-00000004").mkdir()
    (tmp_path / "step-00000004" / "__0_0.distcp").write_bytes(b"copied by hand, and not to the end")
    (tmp_path / "step-00000006.partial").mkdir()
    (tmp_path / "step-00000008.ckpt.partial").write_bytes(b"cut")
    assert step_checkpoints(tmp_path)[-1] == tmp_path / "step-00000002.ckpt"


def test_checkpoints_are_ordered_by_their_numbers(tmp_path: Path) -> None:
    for name in ("step-99999999.ckpt", "step-100000000.ckpt"):
        (tmp_path / name).write_bytes(b"")
    assert step_checkpoints(tmp_path)[-1] == tmp_path / "step-100000000.ckpt"


def lay(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("names", "keep_last", "kept"),
    [
        # The best one of each checkpoint that stays, and the newest, which the next checkpoint will refer to.
        (
            ["best-00000001", "best-00000002", "step-00000003", "best-00000004", "step-00000005"],
            1,
            ["best-00000004", "step-00000005"],
        ),
        (
            ["best-00000001", "best-00000002", "step-00000003", "step-00000005", "best-00000006", "best-00000007"],
            2,
            ["best-00000002", "best-00000007", "step-00000003", "step-00000005"],
        ),
        (["best-00000001", "best-00000002"], 2, ["best-00000002"]),
    ],
)
def test_best_checkpoints_stay_as_long_as_one_to_go_on_from_refers_to_them(
    tmp_path: Path, names: list[str], keep_last: int, kept: list[str]
) -> None:
    lay(tmp_path, *(f"{name}.ckpt" for name in names))
    prune(tmp_path, keep_last)
    assert sorted(path.stem for path in tmp_path.iterdir()) == kept
