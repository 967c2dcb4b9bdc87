"""A step whose loss is not a number: found, named, and stopped at or skipped."""

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_modules.callbacks.anomaly import AnomalyError
from lightning_modules.callbacks.resume import step_checkpoints
from lightning_modules.configuration import AnomalyConfig
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.trainer import build_trainer
from tests.lightning_modules.callbacks.poisoned_training import (
    N_STEPS,
    POISON,
    fit_poisoned,
    language_model,
    poisoned_data,
    train_without_lightning,
    trainer_config,
)
from tests.lightning_modules.memory_logger import MemoryLogger
from tests.ranks import run_on_ranks


def assert_equal_but_for_the_poison(mine: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-6, atol=1e-7, equal_nan=True, msg=name)


def test_a_poisoned_batch_stops_training_and_leaves_the_last_good_checkpoint(
    tiny_config: DecoderConfig, tmp_path: Path
) -> None:
    with pytest.raises(AnomalyError) as stopped:
        fit_poisoned(tiny_config, tmp_path, "stop")
    message = str(stopped.value)
    assert "Optimizer step 3 has a loss of nan" in message
    assert "Micro-batch 1 of 2 on rank 0 (windows 14 to 15) has a loss of nan." in message
    assert "Micro-batch 0" not in message
    assert "trainer.anomalies.nonfinite=skip" in message
    last = step_checkpoints(tmp_path)[-1]
    assert last is not None
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint["global_step"] == 3
    for name, tensor in checkpoint["state_dict"].items():
        assert torch.isfinite(tensor[:POISON] if name.endswith("embed_tokens.weight") else tensor).all(), name


def test_a_skipped_step_moves_nothing_and_shifts_nothing(
    tiny_config: DecoderConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "lightning_modules"):
        model, logger = fit_poisoned(tiny_config, tmp_path, "skip")
    reports = [record.getMessage() for record in caplog.records if record.name.startswith("lightning_modules")]
    assert len(reports) == 1
    assert "Optimizer step 3" in reports[0]
    assert "(windows 14 to 15) has a loss of nan. The step is skipped." in reports[0]
    expected, average = train_without_lightning(tiny_config, skipped_step=3)
    assert_equal_but_for_the_poison(dict(model.state_dict()), dict(expected.state_dict()))
    assert_equal_but_for_the_poison(model.parameter_average, average)
    last = step_checkpoints(tmp_path)[-1]
    assert last is not None
    assert torch.load(last, weights_only=True)["callbacks"]["AnomalyGuard"]["skipped"] == 1
    counts = {step: value for (name, step), value in logger.values.items() if name == "train/skipped_steps"}
    assert counts == {step: float(step >= 3) for step in range(N_STEPS)}


def fit_sharded(rank: int, decoder: DecoderConfig, folder: Path) -> None:
    """Two ranks with a window a micro-batch each: the poisoned one, the 15th, falls to rank 0."""
    torch.set_num_threads(1)
    reports: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: reports.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("lightning_modules.callbacks.anomaly").addHandler(handler)
    model = language_model(decoder, "meta")
    config = trainer_config(1, AnomalyConfig("skip"))
    trainer = build_trainer(config, ParallelConfig(ep=2), "fp32", MemoryLogger(), folder)
    trainer.fit(model, poisoned_data(1))
    expected = "Micro-batch 1 of 2 on rank 0 (windows 14 to 14) has a loss of nan. The step is skipped."
    assert [report.endswith(expected) for report in reports] == ([True] if rank == 0 else [])
    whole = {name: p.full_tensor() for name, p in model.decoder.named_parameters()}  # type: ignore[attr-defined]
    whole |= dict(model.decoder.named_buffers())
    if rank == 0:
        torch.save(whole, folder / "weights.pt")


def test_ranks_skip_together(tiny_config: DecoderConfig, tmp_path: Path) -> None:
    run_on_ranks(fit_sharded, 2, tiny_config, tmp_path)
    expected, _ = train_without_lightning(tiny_config, skipped_step=3)
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    for name, tensor in expected.decoder.state_dict().items():
        # AdamW's first steps enlarge the rounding of the smallest gradients; a step more or less would move by 1e-2.
        assert torch.allclose(weights[name], tensor, rtol=1e-4, atol=1e-4, equal_nan=True), name
