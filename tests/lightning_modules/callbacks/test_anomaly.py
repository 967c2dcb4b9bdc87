"""A step whose loss or gradient is not to be trusted: found, named, and stopped at or skipped."""

import logging
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from lightning_modules.batch import Batch
from lightning_modules.callbacks.anomaly import AnomalyError, AnomalyGuard
from lightning_modules.callbacks.resume import step_checkpoints
from lightning_modules.configuration import AnomalyConfig, OptimizerConfig, TrainerConfig
from lightning_modules.data_module import Collate, OptimizerSteps, SpeechTokens
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.precision.plugins import build_precision
from lightning_modules.schedule import ScheduleConfig
from lightning_modules.trainer import build_trainer
from tests.ranks import run_on_ranks

POISON = 39  # a token whose embedding is not a number
POISONED_WINDOW = 14
ACCUMULATE = 2
N_STEPS = 6
EMA_DECAY = 0.7


class ListDocuments:
    """Random documents; one begins with the poison."""

    def __init__(self, seed: int, poisoned: int | None = None) -> None:
        rng = np.random.default_rng(seed)
        self.documents = [rng.integers(0, POISON, rng.integers(5, 40)) for _ in range(60)]
        self.lengths = np.array([len(document) for document in self.documents])
        if poisoned is not None:
            self.documents[poisoned][0] = POISON

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.documents[index]


def data_module(documents: ListDocuments, batch_size: int) -> SpeechTokens:
    n_batches = N_STEPS * ACCUMULATE
    return SpeechTokens(documents, ListDocuments(seed=2), 16, 2, batch_size, n_batches, seed=3)


def poisoned_windows(data: SpeechTokens) -> list[int]:
    windows = data.train_windows
    return [i for i in range(len(windows)) if POISON in windows[i].tokens[:-1]]


def poisoned_data(batch_size: int) -> SpeechTokens:
    """Of whose windows `POISONED_WINDOW` alone holds the poison: step 3's second micro-batch of two windows."""
    candidates = (data_module(ListDocuments(1, poisoned), batch_size) for poisoned in range(60))
    return next(data for data in candidates if poisoned_windows(data) == [POISONED_WINDOW])


def language_model(decoder: DecoderConfig) -> LanguageModel:
    model = LanguageModel(
        decoder,
        ObjectiveConfig(1.0, 0.3, 0.01, 1e-3),
        OptimizerConfig(1e-2, (0.9, 0.95), 0.1, 1e-8),
        ScheduleConfig(2, 0.5, 0.1),
        N_STEPS,
        seed=1,
    )
    model.load_first_weights = poison
    model.initialize_weights()
    return model


@torch.no_grad()
def poison(decoder: Any) -> None:
    """Put what is not a number into the embedding, or into this rank's share of it."""
    weight = decoder.embed_tokens.weight
    broken = (weight.full_tensor() if isinstance(weight, DTensor) else weight).clone()
    broken[POISON] = float("nan")
    weight.copy_(
        distribute_tensor(broken, weight.device_mesh, weight.placements) if isinstance(weight, DTensor) else broken
    )


def trainer_config(batch_size: int, anomalies: AnomalyConfig) -> TrainerConfig:
    return TrainerConfig(
        accelerator="cpu", max_steps=N_STEPS, batch_size=batch_size, sequence_length=16,
        accumulate_grad_batches=ACCUMULATE, gradient_clip_val=1.0, val_every_steps=N_STEPS, log_every_steps=1,
        checkpoint_every_steps=1, attend_across_documents=False, ema_decay=EMA_DECAY, anomalies=anomalies,
    )  # fmt: skip


class MemoryLogger(Logger):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    @property
    def name(self) -> str:
        return "memory"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))


def fit_poisoned(decoder: DecoderConfig, folder: Path, nonfinite: str) -> tuple[LanguageModel, MemoryLogger]:
    logger = MemoryLogger()
    model = language_model(decoder)
    trainer = build_trainer(trainer_config(2, AnomalyConfig(nonfinite)), None, "fp32", logger, folder)
    trainer.fit(model, poisoned_data(2))
    return model, logger


def equal_but_for_the_poison(mine: dict[str, Tensor], other: dict[str, Tensor]) -> None:
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


def train_without_lightning(decoder: DecoderConfig, skipped_step: int) -> tuple[LanguageModel, dict[str, Tensor]]:
    """The same training written out, with nothing done at one step; and the mean of its parameters."""
    model, data = language_model(decoder), poisoned_data(2)
    (optimizer,) = [model.configure_optimizers()["optimizer"]]
    average = {name: p.detach().clone() for name, p in model.decoder.named_parameters()}
    for step in range(N_STEPS):
        if step == skipped_step:
            continue
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * model.schedule.ratio(step, N_STEPS)
        optimizer.zero_grad()
        load: Any = 0
        steps = OptimizerSteps(data.train_windows, 0, 2 * ACCUMULATE)
        for micro_batch in range(ACCUMULATE):
            first = 2 * (ACCUMULATE * step + micro_batch)
            batch = Collate()([steps[first], steps[first + 1]])
            output = model.predict(batch)
            shares = model.objective.mtp_shares(len(output.sums) - 1, step / N_STEPS)
            loss, _ = model.objective_loss(output, batch, shares)
            (loss / ACCUMULATE).backward()
            load = load + torch.stack([routing.load() for routing in output.routings])
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        for router, router_load in zip(model.decoder.routers(), load, strict=True):
            router.update_bias(router_load, 0.01)
        for name, parameter in model.decoder.named_parameters():
            average[name].lerp_(parameter.detach(), 1 - EMA_DECAY)
    return model, average


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
    equal_but_for_the_poison(dict(model.state_dict()), dict(expected.state_dict()))
    equal_but_for_the_poison(model.parameter_average, average)
    last = step_checkpoints(tmp_path)[-1]
    assert last is not None
    assert torch.load(last, weights_only=True)["callbacks"]["AnomalyGuard"]["skipped"] == 1
    counts = {step: row["train/skipped_steps"] for step, row in logger.rows if "train/skipped_steps" in row}
    assert counts == {step: float(step >= 3) for step in range(N_STEPS)}


class Scripting(torch.autograd.Function):
    """A loss and its gradient that have nothing to do with one another."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, loss: float, gradient: float) -> Tensor:
        ctx.gradient = gradient
        return weight.new_tensor(loss)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        return outer[0] * ctx.gradient, None, None


class Scripted(LanguageModel):
    """Losses and gradient norms as written down, one pair an optimizer step, in place of the decoder's."""

    def __init__(self, decoder: DecoderConfig, script: list[tuple[float, float]]) -> None:
        super().__init__(
            decoder, ObjectiveConfig(1.0, 0.3, 0.0, 0.0), OptimizerConfig(1e-2, (0.9, 0.95), 0.1, 1e-8),
            ScheduleConfig(2, 0.5, 0.1), len(script), seed=1,
        )  # fmt: skip
        self.script = script
        self.weights: list[float] = []

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        loss, norm = self.script[self.global_step]
        weight = self.decoder.lm_head.weight[0, 0]
        self.weights.append(weight.item())
        return {"loss": Scripting.apply(weight, loss, norm)}


def fit_scripted(
    decoder: DecoderConfig, script: list[tuple[float, float]], config: AnomalyConfig, precision: str = "fp32"
) -> tuple[list[int], AnomalyGuard, Scripted]:
    """Train by a script; returns the steps that left the weights as they were."""
    guard, model = AnomalyGuard(config), Scripted(decoder, script)
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_steps=len(script), max_epochs=-1, callbacks=[guard], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        plugins=[build_precision(precision, sharded=False)], use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(model, SpeechTokens(ListDocuments(1), ListDocuments(2), 16, 2, 1, len(script), seed=3))
    weights = [*model.weights, model.decoder.lm_head.weight[0, 0].item()]
    return [step for step, (before, after) in enumerate(pairwise(weights)) if before == after], guard, model


def course(n_steps: int, **changes: tuple[float, float]) -> list[tuple[float, float]]:
    """Losses near 2 and norms near 1, but for the steps that `changes` names: step_9=(loss, norm)."""
    rng = np.random.default_rng(0)
    script = [(2 + 0.1 * float(rng.normal()), 1 + 0.1 * abs(float(rng.normal()))) for _ in range(n_steps)]
    for name, values in changes.items():
        script[int(name.removeprefix("step_"))] = values
    return script


NAN, INF = float("nan"), float("inf")
SPIKES = AnomalyConfig(spike="skip", spike_window=8)


@pytest.mark.parametrize(
    ("changes", "config", "skipped"),
    [
        ({"step_9": (9.0, 1.0)}, SPIKES, [9]),
        ({"step_9": (2.0, 50.0)}, SPIKES, [9]),
        ({"step_5": (9.0, 1.0), "step_6": (9.0, 1.0)}, SPIKES, [5, 6]),  # the first does not excuse the second
        ({"step_2": (9.0, 1.0)}, SPIKES, []),  # too early to tell
        ({"step_9": (2.5, 1.5)}, replace(SPIKES, spike_deviations=20.0), []),
        ({"step_9": (-9.0, 0.01)}, SPIKES, []),  # a fall is no spike
        ({"step_9": (9.0, 50.0)}, AnomalyConfig(), []),
        ({"step_0": (NAN, 1.0), "step_4": (2.0, INF)}, AnomalyConfig(nonfinite="skip"), [0, 4]),
        ({"step_4": (INF, 1.0)}, replace(SPIKES, nonfinite="skip"), [4]),
    ],
)
def test_what_is_skipped(
    tiny_config: DecoderConfig, changes: dict[str, tuple[float, float]], config: AnomalyConfig, skipped: list[int]
) -> None:
    frozen, guard, model = fit_scripted(tiny_config, course(12, **changes), config)
    assert frozen == skipped
    assert guard.skipped == len(skipped)
    assert not model.step_skipped


def test_a_gradient_that_does_not_tell_its_origin_names_all_windows(tiny_config: DecoderConfig) -> None:
    with pytest.raises(AnomalyError) as stopped:
        fit_scripted(tiny_config, course(12, step_9=(2.0, 80.0)), replace(SPIKES, spike="stop"))
    message = str(stopped.value)
    assert "Optimizer step 9 has a gradient norm of 80, where the last 8 steps had 1." in message
    assert "Its 1 micro-batches (windows 9 to 9) have finite losses" in message
    assert "trainer.anomalies.spike=skip" in message


def test_too_many_skips_in_a_row_stop_training(tiny_config: DecoderConfig) -> None:
    script = course(9, **{f"step_{step}": (NAN, 1.0) for step in (1, 2, 4, 5, 6)})
    with pytest.raises(AnomalyError, match="Optimizer step 6 .* 2 steps before it were skipped in a row"):
        fit_scripted(tiny_config, script, AnomalyConfig(nonfinite="skip", max_consecutive_skips=2))


def test_overflows_of_fp16_are_the_loss_scales_affair(tiny_config: DecoderConfig) -> None:
    frozen, guard, _ = fit_scripted(tiny_config, course(6, step_2=(2.0, INF)), AnomalyConfig(), precision="fp16")
    assert frozen == [2]
    assert guard.skipped == 0
    with pytest.raises(AnomalyError, match="Optimizer step 2 has a loss of nan"):
        fit_scripted(tiny_config, course(6, step_2=(NAN, 1.0)), AnomalyConfig(), precision="fp16")


@pytest.mark.parametrize("gradient", [INF, NAN])
def test_gradients_that_overflow_at_every_scale_stop_training(tiny_config: DecoderConfig, gradient: float) -> None:
    config = AnomalyConfig(max_consecutive_overflows=3)
    script = course(12, **{f"step_{step}": (2.0, gradient) for step in (1, 2, 3, 5, 6, 7, 8)})
    with pytest.raises(AnomalyError, match=r"step 8 are not finite.* 3 steps before it.*precision=bf16"):
        fit_scripted(tiny_config, script, config, precision="fp16")


def test_losses_under_fp16_are_judged_unscaled(tiny_config: DecoderConfig) -> None:
    # The overflow halves the scale; a loss seen through it would fall by half, and a later one not stand out.
    script = course(14, step_8=(2.0, INF), step_12=(3.5, 1.0))
    frozen, guard, _ = fit_scripted(tiny_config, script, SPIKES, precision="fp16")
    assert frozen == [8, 12]
    assert guard.skipped == 1


def test_judgement_goes_on_where_it_was(tiny_config: DecoderConfig) -> None:
    _, guard, _ = fit_scripted(tiny_config, course(12), SPIKES)
    again = AnomalyGuard(SPIKES)
    again.load_state_dict(guard.state_dict())
    assert again.state_dict() == guard.state_dict()
    assert len(again.state_dict()["losses"]) == 8
    assert all(type(value) is float for value in again.state_dict()["norms"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nonfinite": "ignore"}, "trainer.anomalies.nonfinite is 'ignore'; choose one of stop, skip"),
        ({"spike": "halt"}, "trainer.anomalies.spike is 'halt'; choose one of ignore, stop, skip"),
        ({"spike_deviations": 0.0}, "trainer.anomalies.spike_deviations"),
        ({"spike_window": 3}, "trainer.anomalies.spike_window"),
        ({"max_consecutive_skips": 0}, "trainer.anomalies.max_consecutive_skips"),
        ({"max_consecutive_overflows": 0}, "trainer.anomalies.max_consecutive_overflows"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnomalyConfig(**changes)


def fit_sharded(rank: int, decoder: DecoderConfig, folder: Path) -> None:
    """Two ranks with a window a micro-batch each: the poisoned one, the 15th, falls to rank 0."""
    torch.set_num_threads(1)
    reports: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: reports.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("lightning_modules.callbacks.anomaly").addHandler(handler)
    with torch.device("meta"):
        model = LanguageModel(
            decoder, ObjectiveConfig(1.0, 0.3, 0.01, 1e-3), OptimizerConfig(1e-2, (0.9, 0.95), 0.1, 1e-8),
            ScheduleConfig(2, 0.5, 0.1), N_STEPS, seed=1,
        )  # fmt: skip
    model.load_first_weights = poison
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
