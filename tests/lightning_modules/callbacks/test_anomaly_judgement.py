"""Which losses and gradient norms are anomalies, and what is done about each."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import lightning as L  # noqa: N812
import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.batch import Batch
from lightning_modules.callbacks.anomaly import AnomalyError, AnomalyGuard
from lightning_modules.configuration import AnomalyConfig, OptimizerConfig
from lightning_modules.data_module import SpeechTokens
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.precision.plugins import build_precision
from lightning_modules.schedule import ScheduleConfig
from tests.lightning_modules.callbacks.poisoned_training import random_documents


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
    trainer.fit(model, SpeechTokens(random_documents(1), random_documents(2), 16, 2, 1, len(script), seed=3))
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
