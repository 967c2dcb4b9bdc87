import os
from pathlib import Path

import pytest

from pipeline.plumbing.lock import exclusive
from pipeline.training.interrupted import LOCK, interrupted_trainings, lock_of, main

OLD, NEW = "0123456789abcdef", "0123aaaaaaaaaaaa"


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Two interrupted trainings, one of them with a description that is none, and what lies beside them."""
    for name, description, step in ((OLD, "[]", 20), (NEW, '{"name": "4x128"}', 1000)):
        folder = tmp_path / "resume" / name
        folder.mkdir(parents=True)
        (folder / "training.json").write_text(description)
        (folder / f"step-{step:08d}.ckpt").write_bytes(bytes(2_000_000))
    for path in (tmp_path / "resume" / OLD).iterdir():
        os.utime(path, (1e9, 1e9))
    (tmp_path / "resume" / LOCK).touch()
    (tmp_path / "resume" / "ffff.removed").mkdir()
    return tmp_path


def test_trainings_are_listed_with_what_they_are_and_how_far_they_came(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--outputs", str(outputs)]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert NEW in first
    assert "2.0 MB  step 1000  4x128" in first
    assert OLD in second
    assert "2001-09-09" in second
    assert "step 20  ?" in second
    assert "MB in all. To remove some: python -m pipeline.training.interrupted --older-than DAYS" in last


def test_old_ones_are_removed_and_others_stay(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--outputs", str(outputs), "--older-than", "30"]) == 0
    assert "removed  ?" in capsys.readouterr().out
    assert [training.path.name for training in interrupted_trainings(outputs / "resume")] == [NEW]


def test_one_is_removed_by_the_beginning_of_its_name_alone(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--outputs", str(outputs), "--remove", "0123"]) == 2
    assert "--remove 0123 names 2 of 2 trainings; it has to name one." in capsys.readouterr().err
    assert main(["--outputs", str(outputs), "--remove", "0123a"]) == 0
    assert [training.path.name for training in interrupted_trainings(outputs / "resume")] == [OLD]


def test_one_that_is_under_way_is_not_removed(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with exclusive(lock_of(outputs / "resume" / NEW), "Training 4x128", outputs):
        assert main(["--outputs", str(outputs)]) == 0
        assert "step 1000, under way  4x128" in capsys.readouterr().out
        assert main(["--outputs", str(outputs), "--remove", NEW]) == 2
    assert "Training 4x128 (process" in capsys.readouterr().err
    assert len(interrupted_trainings(outputs / "resume")) == 2


def test_no_folder_holds_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--outputs", str(tmp_path)]) == 0
    assert "No interrupted training lies in" in capsys.readouterr().out
