from pathlib import Path
from typing import Any

import pytest

from pipeline.plumbing.fingerprint import fingerprint
from pipeline.training.resume_folder import ResumeFolder, training_identity

IDENTITY = {"model": {"layers": 2, "betas": [0.9, 0.95]}, "seed": 1}


def prepared(path: Path, identity: dict[str, Any] = IDENTITY) -> ResumeFolder:
    resume = ResumeFolder(path)
    resume.prepare(identity)
    return resume


def interrupted(path: Path, run_id: str | None = "run-1", checkpoint: bool = True) -> None:
    """Leave what a training leaves that was interrupted after its first checkpoint."""
    resume = prepared(path, IDENTITY)
    resume.remember_run(run_id)
    resume.history.write_text("{}\n")
    if checkpoint:
        (path / "step-00000010.ckpt").write_bytes(b"state")


def test_a_fingerprint_is_of_values_and_not_of_their_order() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize("other", [{"a": [2, 1]}, {"a": [1, 2], "b": None}, {"a": [1, 2.5]}, {"a": "[1, 2]"}])
def test_different_values_have_different_fingerprints(other: dict[str, Any]) -> None:
    assert fingerprint({"a": [1, 2]}) != fingerprint(other)


def test_a_new_training_has_nothing_to_go_on_from(tmp_path: Path) -> None:
    resume = prepared(tmp_path / "outputs" / "resume", IDENTITY)
    assert resume.last is None
    assert resume.run_id is None
    assert resume.path.is_dir()


def test_the_same_training_goes_on(tmp_path: Path) -> None:
    interrupted(tmp_path / "resume")
    resume = prepared(tmp_path / "resume", {"seed": 1, "model": {"betas": [0.9, 0.95], "layers": 2}})
    assert resume.last is not None
    assert resume.last.read_bytes() == b"state"
    assert resume.run_id == "run-1"
    assert resume.history.read_text() == "{}\n"


def test_a_training_that_never_saved_begins_a_run_of_its_own(tmp_path: Path) -> None:
    interrupted(tmp_path / "resume", checkpoint=False)
    resume = prepared(tmp_path / "resume", IDENTITY)
    assert resume.last is None
    assert resume.run_id is None


@pytest.mark.parametrize("change", [{"seed": 2}, {"model": {"layers": 3, "betas": [0.9, 0.95]}}, {"extra": None}])
def test_another_training_starts_anew(tmp_path: Path, change: dict[str, Any]) -> None:
    interrupted(tmp_path / "resume")
    resume = prepared(tmp_path / "resume", IDENTITY | change)
    assert resume.last is None
    assert not resume.history.exists()
    (tmp_path / "resume" / "step-00000010.ckpt").write_bytes(b"new")
    assert resume.run_id is None
    assert prepared(tmp_path / "resume", IDENTITY | change).last is not None


def test_a_folder_of_unknown_origin_starts_anew(tmp_path: Path) -> None:
    interrupted(tmp_path / "resume")
    (tmp_path / "resume" / "training.json").unlink()
    assert prepared(tmp_path / "resume", IDENTITY).last is None


def test_a_run_can_be_remembered_anew_and_forgotten(tmp_path: Path) -> None:
    interrupted(tmp_path / "resume")
    for run_id in ("run-2", None):
        prepared(tmp_path / "resume", IDENTITY).remember_run(run_id)
        assert prepared(tmp_path / "resume", IDENTITY).run_id == run_id


def sharded(folder: Path, content: str) -> None:
    folder.mkdir()
    for name in (".metadata", "meta.pt", "__0_0.distcp"):
        (folder / name).write_text(content)


def test_the_newest_whole_checkpoint_counts_whether_file_or_folder(tmp_path: Path) -> None:
    interrupted(tmp_path)
    sharded(tmp_path / "step-00000012", "whole")
    (tmp_path / "step-00000014").mkdir()
    assert prepared(tmp_path).last == tmp_path / "step-00000012"


def test_what_a_killed_save_left_is_cleaned(tmp_path: Path) -> None:
    interrupted(tmp_path)
    sharded(tmp_path / "step-00000012.partial", "written to the end, but never named")
    (tmp_path / "best.ckpt.partial").write_text("cut")
    assert prepared(tmp_path).last == tmp_path / "step-00000010.ckpt"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.jsonl", "step-00000010.ckpt", "training.json"]


@pytest.mark.parametrize("new_is_named", [False, True])
def test_the_best_checkpoint_survives_a_kill_while_it_is_replaced(tmp_path: Path, new_is_named: bool) -> None:
    interrupted(tmp_path)
    sharded(tmp_path / "best.ckpt.replaced", "old")
    sharded(tmp_path / ("best.ckpt" if new_is_named else "best.ckpt.partial"), "new")
    best = prepared(tmp_path).best
    assert (best / "meta.pt").read_text() == ("new" if new_is_named else "old")
    assert not list(tmp_path.glob("best.ckpt.*"))


VALUES: dict[str, Any] = {
    "model": {"layers": 2},
    "optimizer": {"lr": 1e-3},
    "schedule": {},
    "precision": {"kind": "fp32"},
    "strategy": {"kind": "expert_parallel", "ep": 2},
    "seed": 1,
    "trainer": {
        "accelerator": "cpu",
        "max_steps": 10,
        "batch_size": 4,
        "accumulate_grad_batches": 2,
        "gradient_clip_val": 1.0,
        "checkpoint_every_steps": 5,
        "keep_last": 2,
        "anomalies": {"nonfinite": "stop"},
    },
}


def identity(world_size: int, strategy: dict[str, Any] | None = None, **trainer: Any) -> str:
    values = VALUES | {"strategy": strategy or VALUES["strategy"], "trainer": VALUES["trainer"] | trainer}
    return fingerprint(training_identity(values, {"tokens": 5}, world_size))


@pytest.mark.parametrize(
    ("world_size", "changes"),
    [
        (4, {"strategy": {"kind": "expert_parallel", "ep": 4, "dp_shard": 1}}),
        (1, {"strategy": {"kind": "single_device"}, "batch_size": 8, "accumulate_grad_batches": 4}),
        (8, {"accumulate_grad_batches": 1, "accelerator": "gpu"}),
        (2, {"batch_size": 16, "accumulate_grad_batches": 1, "checkpoint_every_steps": 1, "keep_last": 9}),
        (4, {"anomalies": {"nonfinite": "skip"}}),
    ],
)
def test_a_training_is_the_same_however_its_batch_is_shared_out(world_size: int, changes: dict[str, Any]) -> None:
    assert identity(world_size, **changes) == identity(4)


@pytest.mark.parametrize(
    ("world_size", "changes"), [(8, {}), (4, {"batch_size": 8}), (4, {"max_steps": 11}), (4, {"gradient_clip_val": 2})]
)
def test_another_global_batch_or_setting_is_another_training(world_size: int, changes: dict[str, Any]) -> None:
    assert identity(world_size, **changes) != identity(4)


def test_a_finished_training_leaves_nothing(tmp_path: Path) -> None:
    interrupted(tmp_path / "resume")
    prepared(tmp_path / "resume", IDENTITY).remove()
    assert list(tmp_path.iterdir()) == []
