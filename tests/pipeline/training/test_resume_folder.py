import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.checkpoints.stored_tensor import DamagedCheckpointError
from pipeline.training.resume_folder import ResumeFolder

IDENTITY = {"model": {"layers": 2, "betas": [0.9, 0.95]}, "seed": 1}


def folder(root: Path, identity: dict[str, Any] = IDENTITY) -> ResumeFolder:
    return ResumeFolder(root, identity, "2x64")


def save(resume: ResumeFolder, step: int, best: int | None, run_id: str | None = "run-1") -> Path:
    """Write a checkpoint to go on from."""
    path = resume.path / f"step-{step:08d}.ckpt"
    content = {"global_step": step, "callbacks": {"BestCheckpoint": {"step": best, "loss": 2.0}}, "tracked_run": run_id}
    torch.save(content | {"state_dict": {"weight": torch.full((1000,), float(step))}}, path)
    return path


def save_best(resume: ResumeFolder, step: int) -> Path:
    path = resume.path / f"best-{step:08d}.ckpt"
    torch.save({"global_step": step, "state_dict": {"weight": torch.ones(1000)}}, path)
    return path


def interrupted(root: Path) -> ResumeFolder:
    """Leave what a training leaves that was interrupted after its third checkpoint."""
    resume = folder(root)
    resume.begin(None)
    for step, best in ((10, 10), (20, 10), (30, 30)):
        if step == best:
            save_best(resume, step)
        save(resume, step, best)
    return resume


def test_a_new_training_has_nothing_to_go_on_from_and_writes_nothing_before_it_begins(tmp_path: Path) -> None:
    resume = folder(tmp_path / "outputs" / "resume")
    assert resume.find() is None
    assert list(tmp_path.iterdir()) == []
    resume.begin(None)
    assert resume.path.is_dir()


def test_the_same_training_goes_on(tmp_path: Path) -> None:
    interrupted(tmp_path)
    resume = folder(tmp_path, {"seed": 1, "model": {"betas": [0.9, 0.95], "layers": 2}})
    point = resume.find()
    assert point is not None
    assert (point.step, point.checkpoint.name, point.run_id) == (30, "step-00000030.ckpt", "run-1")
    resume.begin(point)
    assert resume.find() == point
    assert resume.best(30).is_file()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 2}, "The one that stopped at step 30 differs from it in seed (1 there, 2 here)."),
        ({"model": {"layers": 3, "betas": [0.9, 0.95]}}, "differs from it in model.layers (2 there, 3 here)."),
        ({"extra": None}, "differs from it in extra (absent there, None here)."),
    ],
)
def test_another_training_starts_anew_and_leaves_this_one_alone(
    tmp_path: Path, change: dict[str, Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted(tmp_path)
    other = folder(tmp_path, IDENTITY | change)
    assert other.find() is None
    with caplog.at_level(logging.INFO):
        other.begin(None)
    assert f"Other interrupted trainings in {tmp_path}: 1, 0.0 GB." in caplog.text
    assert "This training begins anew." in caplog.text
    assert told in caplog.text
    save(other, 1, None)
    other.remove()
    point = folder(tmp_path).find()
    assert point is not None
    assert point.step == 30


def test_a_training_that_is_nothing_like_the_others_is_not_held_against_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted(tmp_path)
    with caplog.at_level(logging.INFO):
        folder(tmp_path, {"seed": 2, "model": {"betas": [0.5, 0.95], "layers": 3}}).begin(None)
    assert "Other interrupted trainings" in caplog.text
    assert "begins anew" not in caplog.text


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[
        content.index(torch.ones(1000).numpy().tobytes()[:400]) + 100 if b"best" in path.name.encode() else 2500
    ] ^= 1
    path.write_bytes(content)


DAMAGES: list[Callable[[Path], Any]] = [
    Path.unlink,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:3000]),
    lambda path: path.write_bytes(bytes(range(256)) * 20),
    lambda path: path.write_text("[1, 2]"),
    flip,
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("what", ["step-00000030.ckpt", "best-00000030.ckpt"])
def test_damage_to_the_last_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, what: str, damage: Callable[[Path], Any], caplog: pytest.LogCaptureFixture
) -> None:
    resume = interrupted(tmp_path)
    damage(resume.path / what)
    point = resume.find()
    assert point is not None
    assert point.step == 20
    if (damage, what) != (Path.unlink, "step-00000030.ckpt"):
        assert "Going on from the checkpoint before it, step 20." in caplog.text
        assert "30" in caplog.text
    resume.begin(point)
    names = sorted(path.name for path in resume.path.glob("*.ckpt"))
    assert names == ["best-00000010.ckpt", "step-00000010.ckpt", "step-00000020.ckpt"]


def test_a_best_checkpoint_that_is_damaged_cannot_be_gone_on_without(tmp_path: Path) -> None:
    resume = interrupted(tmp_path)
    (resume.path / "step-00000030.ckpt").unlink()
    (resume.path / "best-00000010.ckpt").write_bytes(b"")
    with pytest.raises(DamagedCheckpointError, match="None of the 2 checkpoints in .* is whole, the newest because"):
        resume.find()
    assert len(list(resume.path.glob("*.ckpt"))) == 4


def sharded(path: Path) -> Path:
    path.mkdir()
    for name in (".metadata", "meta.pt", "__0_0.distcp"):
        (path / name).write_text("not what it says")
    return path


@pytest.mark.parametrize("absent", [".metadata", "meta.pt", None])
def test_a_folder_that_is_no_whole_checkpoint_falls_back_too(tmp_path: Path, absent: str | None) -> None:
    resume = interrupted(tmp_path)
    path = sharded(resume.path / "step-00000040")
    if absent is not None:
        (path / absent).unlink()
    point = resume.find()
    assert point is not None
    assert point.step == 30
    resume.begin(point)
    assert not path.exists()


@pytest.mark.parametrize("content", [None, "", "[]", "{", "\x00", '{"name": 3}'])
def test_a_description_is_for_people_alone(tmp_path: Path, content: str | None) -> None:
    resume = interrupted(tmp_path)
    description = resume.path / "training.json"
    description.unlink()
    if content is not None:
        description.write_text(content)
    point = resume.find()
    assert point is not None
    assert point.step == 30
    resume.begin(point)
    assert '"name": "2x64"' in description.read_text()


def test_a_checkpoint_of_something_else_is_not_gone_on_from(tmp_path: Path) -> None:
    resume = interrupted(tmp_path)
    torch.save({"global_step": 40}, resume.path / "step-00000040.ckpt")
    (resume.path / "step-00000030.ckpt").rename(resume.path / "step-00000050.ckpt")
    point = resume.find()
    assert point is not None
    assert point.step == 20


def test_a_folder_goes_on_wherever_it_was_moved(tmp_path: Path) -> None:
    resume = interrupted(tmp_path / "here")
    (tmp_path / "there").mkdir()
    resume.path.rename(folder(tmp_path / "there").path)
    point = folder(tmp_path / "there").find()
    assert point is not None
    assert point.step == 30


def test_what_kills_left_is_cleaned(tmp_path: Path) -> None:
    resume = interrupted(tmp_path)
    sharded(resume.path / "step-00000040.partial")
    (resume.path / "best-00000040.ckpt.partial").write_text("cut")
    sharded(tmp_path / "0123456789abcdef.removed")
    resume.begin(resume.find())
    assert not list(tmp_path.rglob("*.partial"))
    assert not list(tmp_path.glob("*.removed"))


def test_a_finished_training_leaves_nothing(tmp_path: Path) -> None:
    interrupted(tmp_path).remove()
    assert list(tmp_path.iterdir()) == []
