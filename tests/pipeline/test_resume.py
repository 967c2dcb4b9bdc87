from pathlib import Path
from typing import Any

import pytest

from pipeline.resume import ResumeFolder, fingerprint

IDENTITY = {"model": {"layers": 2, "betas": [0.9, 0.95]}, "seed": 1}


def interrupted(path: Path, run_id: str | None = "run-1", checkpoint: bool = True) -> None:
    """Leave what a training leaves that was interrupted after its first checkpoint."""
    resume = ResumeFolder(path, IDENTITY)
    resume.remember_run(run_id)
    resume.history.write_text("{}\n")
    if checkpoint:
        (path / "last.ckpt").write_bytes(b"state")


def test_a_fingerprint_is_of_values_and_not_of_their_order() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize("other", [{"a": [2, 1]}, {"a": [1, 2], "b": None}, {"a": [1, 2.5]}, {"a": "[1, 2]"}])
def test_different_values_have_different_fingerprints(other: dict[str, Any]) -> None:
    assert fingerprint({"a": [1, 2]}) != fingerprint(other)


def test_a_new_training_has_nothing_to_go_on_from(tmp_path: Path) -> None:
    resume = ResumeFolder(tmp_path / "outputs" / "resume", IDENTITY)
    assert resume.last is None
    assert resume.run_id is None
    assert resume.path.is_dir()


def test_the_same_training_goes_on(tmp_path: Path) -> None:
    interrupted(tmp_path / "resume")
    resume = ResumeFolder(tmp_path / "resume", {"seed": 1, "model": {"betas": [0.9, 0.95], "layers": 2}})
    assert resume.last is not None
    assert resume.last.read_bytes() == b"state"
    assert resume.run_id == "run-1"
    assert resume.history.read_text() == "{}\n"


def test_a_training_that_never_saved_begins_a_run_of_its_own(tmp_path: Path) -> None:
    interrupted(tmp_path / "resume", checkpoint=False)
    resume = ResumeFolder(tmp_path / "resume", IDENTITY)
    assert resume.last is None
    assert resume.run_id is None


@pytest.mark.parametrize("change", [{"seed": 2}, {"model": {"layers": 3, "betas": [0.9, 0.95]}}, {"extra": None}])
def test_another_training_starts_anew(tmp_path: Path, change: dict[str, Any]) -> None:
    interrupted(tmp_path / "resume")
    resume = ResumeFolder(tmp_path / "resume", IDENTITY | change)
    assert resume.last is None
    assert not resume.history.exists()
    (tmp_path / "resume" / "last.ckpt").write_bytes(b"new")
    assert resume.run_id is None
    assert ResumeFolder(tmp_path / "resume", IDENTITY | change).last is not None


def test_a_folder_of_unknown_origin_starts_anew(tmp_path: Path) -> None:
    interrupted(tmp_path / "resume")
    (tmp_path / "resume" / "training.json").unlink()
    assert ResumeFolder(tmp_path / "resume", IDENTITY).last is None


def test_a_run_can_be_remembered_anew_and_forgotten(tmp_path: Path) -> None:
    interrupted(tmp_path / "resume")
    for run_id in ("run-2", None):
        ResumeFolder(tmp_path / "resume", IDENTITY).remember_run(run_id)
        assert ResumeFolder(tmp_path / "resume", IDENTITY).run_id == run_id


def test_a_finished_training_leaves_nothing(tmp_path: Path) -> None:
    interrupted(tmp_path / "resume")
    ResumeFolder(tmp_path / "resume", IDENTITY).remove()
    assert list(tmp_path.iterdir()) == []
