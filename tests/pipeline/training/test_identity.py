from pathlib import Path
from typing import Any

import pytest

from lightning_modules.configuration import TrainerConfig
from pipeline.plumbing.fingerprint import fingerprint
from pipeline.training.identity import training_identity

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
        "log_every_steps": 10,
        "val_every_steps": 5,
        "compile": False,
        "recompute": "none",
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
        (4, {"log_every_steps": 1, "compile": True, "recompute": "blocks"}),
    ],
)
def test_a_training_is_the_same_however_its_batch_is_shared_out(world_size: int, changes: dict[str, Any]) -> None:
    assert identity(world_size, **changes) == identity(4)


@pytest.mark.parametrize(
    ("world_size", "changes"),
    [
        (8, {}),
        (4, {"batch_size": 8}),
        (4, {"max_steps": 11}),
        (4, {"gradient_clip_val": 2}),
        (4, {"val_every_steps": 1}),
    ],
)
def test_another_global_batch_or_setting_is_another_training(world_size: int, changes: dict[str, Any]) -> None:
    assert identity(world_size, **changes) != identity(4)


def test_tracking_changes_no_training() -> None:
    identities = [training_identity(VALUES | {"tracking": {"uri": uri}}, {}, 1) for uri in ("a", "b")]
    assert identities[0] == identities[1]


def test_first_weights_count_by_content_wherever_they_lie(tmp_path: Path) -> None:
    for name, content in (("a.ckpt", b"1"), ("b.ckpt", b"1"), ("c.ckpt", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (identity(1, start_from=str(tmp_path / name)) for name in ("a.ckpt", "b.ckpt", "c.ckpt"))
    assert a == b != c
    with pytest.raises(FileNotFoundError, match="none.ckpt does not exist"):
        identity(1, start_from=str(tmp_path / "none.ckpt"))


@pytest.mark.parametrize("n_ranks", [1, 2, 4])
def test_a_global_batch_makes_the_same_training_of_any_number_of_ranks(n_ranks: int) -> None:
    config = portioned(global_batch=8)
    assert identity(n_ranks, batch_size=2, accumulate_grad_batches=config.n_accumulated(n_ranks), global_batch=8) == (
        identity(4, batch_size=2, accumulate_grad_batches=1)
    )


def test_a_global_batch_that_ranks_cannot_share_is_refused() -> None:
    assert portioned(global_batch=None).n_accumulated(3) == 5
    with pytest.raises(ValueError, match="global_batch is 8, which is no multiple of 3 ranks × .* 2 = 6"):
        portioned(global_batch=8).n_accumulated(3)
    with pytest.raises(ValueError, match="global_batch is 0; it must be at least 1, or null"):
        portioned(global_batch=0)


def portioned(global_batch: int | None) -> TrainerConfig:
    return TrainerConfig(
        accelerator="cpu", max_steps=10, batch_size=2, sequence_length=32, accumulate_grad_batches=5,
        gradient_clip_val=None, val_every_steps=5, log_every_steps=1, checkpoint_every_steps=5,
        attend_across_documents=False, global_batch=global_batch,
    )  # fmt: skip
