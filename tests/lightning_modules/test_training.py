"""Training as a whole, on tokens that can be learnt: resume, accumulation, balance."""

import dataclasses
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import pytest
import torch

from lightning_modules.callbacks.resume import step_checkpoints
from lightning_modules.configuration import OptimizerConfig, TrainerConfig
from lightning_modules.data_module import SpeechTokens
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.precision.recipes import RECIPES
from lightning_modules.schedule import ScheduleConfig
from lightning_modules.trainer import build_trainer, compiles
from tests.lightning_modules.documents import rising_documents
from tests.lightning_modules.memory_logger import MemoryLogger

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="working weights are a GPU's")


class Interruption(L.Callback):
    def __init__(self, at_step: int) -> None:
        self.at_step = at_step

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == self.at_step:
            raise ConnectionAbortedError("the machine went away")


def trainer_config(**changes: Any) -> TrainerConfig:
    values: dict[str, Any] = {
        "accelerator": "cpu",
        "max_steps": 12,
        "batch_size": 4,
        "sequence_length": 32,
        "accumulate_grad_batches": 1,
        "gradient_clip_val": 1.0,
        "val_every_steps": 4,
        "log_every_steps": 1,
        "checkpoint_every_steps": 2,
        "attend_across_documents": False,
    }
    return TrainerConfig(**(values | changes))


def train(
    decoder: DecoderConfig,
    config: TrainerConfig,
    folder: Path,
    callbacks: tuple[L.Callback, ...] = (),
    resume: Path | None = None,
    bias_update_speed: float = 0.01,
    precision: str = "fp32",
    moments: str = "fp32",
) -> tuple[LanguageModel, MemoryLogger]:
    L.seed_everything(1, verbose=False)
    model = LanguageModel(
        decoder,
        ObjectiveConfig(1.0, 0.3, bias_update_speed, 1e-3),
        OptimizerConfig(1e-2, (0.9, 0.95), 0.1, 1e-8, moments),
        ScheduleConfig(2, 0.5, 0.1),
        config.max_steps,
        seed=1,
        recompute=config.recompute,
    )
    data = SpeechTokens(
        rising_documents(60, seed=1), rising_documents(10, seed=2), config.sequence_length, 2, config.batch_size,
        config.n_batches, seed=3,
    )  # fmt: skip
    logger = MemoryLogger()
    trainer = build_trainer(config, None, precision, logger, folder)
    trainer.callbacks[0:0] = callbacks
    trainer.fit(model, data, ckpt_path=resume, weights_only=True)
    return model, logger


def best_checkpoint(folder: Path) -> Path:
    return max(folder.glob("best-*"))


@pytest.mark.parametrize("interrupted_at", [7, 8])
def test_an_interrupted_training_ends_like_an_uninterrupted_one(
    tiny_config: DecoderConfig, tmp_path: Path, interrupted_at: int
) -> None:
    config = trainer_config(ema_decay=0.8)
    whole, whole_log = train(tiny_config, config, tmp_path / "whole")
    with pytest.raises(ConnectionAbortedError):
        train(tiny_config, config, tmp_path / "cut", (Interruption(interrupted_at),))
    resumed, resumed_log = train(tiny_config, config, tmp_path / "cut", resume=step_checkpoints(tmp_path / "cut")[-1])
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert whole.parameter_average.keys() == dict(whole.decoder.named_parameters()).keys()
    for name, tensor in whole.parameter_average.items():
        assert torch.equal(tensor, resumed.parameter_average[name]), name
    first = min(step for _, step in resumed_log.values)
    assert first >= 6
    assert resumed_log.values == {key: value for key, value in whole_log.values.items() if key[1] >= first}
    best = [torch.load(best_checkpoint(tmp_path / run), weights_only=True) for run in ("whole", "cut")]
    assert best[0]["global_step"] == best[1]["global_step"]
    for name, tensor in best[0]["state_dict"].items():
        assert torch.equal(tensor, best[1]["state_dict"][name]), name


@on_gpu
@pytest.mark.parametrize("moments", ["fp32", "bf16"])
def test_a_training_with_working_weights_ends_like_an_uninterrupted_one(
    tiny_config: DecoderConfig, tmp_path: Path, moments: str
) -> None:
    config = trainer_config(accelerator="gpu", ema_decay=0.8)
    whole, _ = train(tiny_config, config, tmp_path / "whole", precision="bf16", moments=moments)
    with pytest.raises(ConnectionAbortedError):
        train(tiny_config, config, tmp_path / "cut", (Interruption(8),), precision="bf16", moments=moments)
    checkpoint = step_checkpoints(tmp_path / "cut")[-1]
    resumed, _ = train(tiny_config, config, tmp_path / "cut", resume=checkpoint, precision="bf16", moments=moments)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    for name, tensor in whole.parameter_average.items():
        assert torch.equal(tensor, resumed.parameter_average[name]), name


@on_gpu
@pytest.mark.parametrize(("first", "second"), [("cpu", "gpu"), ("gpu", "cpu")])
def test_a_training_goes_on_with_or_without_working_weights(
    tiny_config: DecoderConfig, tmp_path: Path, first: str, second: str
) -> None:
    precisions = {"cpu": "fp32", "gpu": "bf16"}
    _, log = train(tiny_config, trainer_config(accelerator=first), tmp_path / first, precision=precisions[first])
    checkpoint = step_checkpoints(tmp_path / first)[0]
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    _, resumed = train(
        tiny_config, trainer_config(accelerator=second), tmp_path / second, resume=checkpoint,
        precision=precisions[second],
    )  # fmt: skip
    losses = {key: value for key, value in resumed.values.items() if key[0] == "train/loss"}
    assert losses
    for key, loss in losses.items():
        assert loss == pytest.approx(log.values[key], rel=2e-2), key


def test_the_loss_falls_and_equal_seeds_give_equal_runs(tiny_config: DecoderConfig, tmp_path: Path) -> None:
    first, first_log = train(tiny_config, trainer_config(max_steps=40), tmp_path / "a")
    second, second_log = train(tiny_config, trainer_config(max_steps=40), tmp_path / "b")
    assert first_log.values == second_log.values
    losses = [
        value
        for (name, _), value in sorted(first_log.values.items(), key=lambda item: item[0][1])
        if name == "val/loss"
    ]
    assert losses[-1] < 0.6 * losses[0]


def test_accumulated_micro_batches_equal_one_large_batch(tiny_config: DecoderConfig, tmp_path: Path) -> None:
    # The sequence-wise balance loss is a mean over sequences, so it adds up as well.
    large, large_log = train(tiny_config, trainer_config(batch_size=8, max_steps=6), tmp_path / "large")
    small, small_log = train(
        tiny_config, trainer_config(batch_size=2, accumulate_grad_batches=4, max_steps=6), tmp_path / "small"
    )
    # What is logged is the step's: the last micro-batch's alone would differ.
    losses = {key: value for key, value in large_log.values.items() if "loss" in key[0]}
    assert {name for name, _ in losses} >= {"train/loss", "train/mtp_loss_1", "train/balance_loss", "val/loss"}
    for key, loss in losses.items():
        assert small_log.values[key] == pytest.approx(loss, rel=1e-4), key
    for name, tensor in large.state_dict().items():
        torch.testing.assert_close(small.state_dict()[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
        if name.endswith("e_score_correction_bias"):
            assert torch.equal(small.state_dict()[name], tensor)
            assert tensor.abs().sum() > 0


class Trajectory(L.Callback):
    """Keeps the parameters before the first step, and after each."""

    def __init__(self) -> None:
        self.parameters: list[dict[str, torch.Tensor]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if trainer.global_step == len(self.parameters):
            self.parameters.append({n: p.detach().clone() for n, p in pl_module.decoder.named_parameters()})


@pytest.mark.parametrize("offload", [False, True])
def test_the_parameter_average_follows_optimizer_steps(
    tiny_config: DecoderConfig, tmp_path: Path, offload: bool
) -> None:
    trajectory = Trajectory()
    config = trainer_config(max_steps=5, accumulate_grad_batches=2, ema_decay=0.9, ema_offload=offload)
    model, _ = train(tiny_config, config, tmp_path, (trajectory,))
    assert len(trajectory.parameters) == 5
    trajectory.parameters.append(dict(model.decoder.named_parameters()))
    checkpoint = torch.load(best_checkpoint(tmp_path), weights_only=True)
    for name, average in model.parameter_average.items():
        expected = trajectory.parameters[0][name].double()
        for parameters in trajectory.parameters[1:]:
            expected = 0.9 * expected + 0.1 * parameters[name].detach().double()
        torch.testing.assert_close(average.double(), expected, rtol=1e-5, atol=1e-7)
        assert torch.equal(checkpoint["parameter_average"][name], average)


def test_recomputation_changes_no_bit_of_a_training(tiny_config: DecoderConfig, tmp_path: Path) -> None:
    plain, plain_log = train(tiny_config, trainer_config(max_steps=4), tmp_path / "plain")
    lean, lean_log = train(tiny_config, trainer_config(max_steps=4, recompute="activations"), tmp_path / "lean")
    assert lean.decoder.recompute == "activations"
    assert plain_log.values == lean_log.values
    for name, tensor in plain.state_dict().items():
        assert torch.equal(lean.state_dict()[name], tensor), name


def test_the_last_step_is_validated(tiny_config: DecoderConfig, tmp_path: Path) -> None:
    _, log = train(tiny_config, trainer_config(max_steps=6, val_every_steps=4), tmp_path)
    assert sorted(step for name, step in log.values if name == "val/loss") == [3, 5]


def test_the_checkpoint_opens_without_unpickling(tiny_config: DecoderConfig, tmp_path: Path) -> None:
    train(tiny_config, trainer_config(max_steps=4), tmp_path)
    checkpoint = torch.load(best_checkpoint(tmp_path), weights_only=True)
    assert DecoderConfig(**checkpoint["hyper_parameters"]["decoder"]) == tiny_config
    assert "optimizer_states" not in checkpoint


def test_a_gpu_compiles_what_repays_it(tiny_config: DecoderConfig) -> None:
    def decides(precision: str = "bf16", **changes: Any) -> bool:
        return compiles(trainer_config(**({"accelerator": "gpu", "compile": None} | changes)), tiny_config, precision)

    assert decides(max_steps=10**8, batch_size=64)
    assert not decides(max_steps=100)
    assert not decides(max_steps=10**8, batch_size=64, accelerator="cpu")
    assert decides(max_steps=1, compile=True)
    assert not decides(max_steps=10**8, batch_size=64, compile=False)


@pytest.mark.parametrize("has_kernels", [True, False])
def test_fp8_is_compiled_where_it_is_not_emulated(
    tiny_config: DecoderConfig, monkeypatch: pytest.MonkeyPatch, has_kernels: bool
) -> None:
    recipe = dataclasses.replace(RECIPES["fp8_deepseek"], runs_on=lambda shape, device: has_kernels)
    monkeypatch.setitem(RECIPES, "fp8_deepseek", recipe)
    config = trainer_config(accelerator="gpu", compile=None, max_steps=10**8, batch_size=64)
    # Of narrower experts nothing would be in FP8.
    decoder = dataclasses.replace(tiny_config, moe_intermediate_size=128)
    assert compiles(config, decoder, "fp8_deepseek") == has_kernels


def test_emulated_fp8_is_not_compiled(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"trainer\.compile is true.*set trainer\.compile=false"):
        build_trainer(trainer_config(compile=True), None, "fp8_deepseek", MemoryLogger(), tmp_path)
