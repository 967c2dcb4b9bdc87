"""Every kind of precision trains, in the types it promises."""

import copy
from collections.abc import Callable

import lightning as L  # noqa: N812
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_modules.model.decoder import Decoder
from lightning_modules.precision.kinds import PRECISIONS
from lightning_modules.precision.plugins import LossScalingPrecision, build_precision
from lightning_modules.precision.recipes import everything


class CountingModel(L.LightningModule):
    """A decoder that learns to count, and keeps its losses."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.losses: list[float] = []
        self.logits_dtype: torch.dtype | None = None

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        logits = self.decoder.next_token_logits(batch[:, :-1])[0]
        self.logits_dtype = logits.dtype
        loss = F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        self.losses.append(loss.item())
        return loss

    def train_dataloader(self) -> DataLoader:
        starts = torch.randint(0, 40, (160, 1), generator=torch.Generator().manual_seed(0))
        return DataLoader(list((starts + torch.arange(17)) % 40), batch_size=4)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=5e-3)


def train(decoder: Decoder, precision: Precision, steps: int) -> CountingModel:
    model = CountingModel(copy.deepcopy(decoder))
    trainer = L.Trainer(
        accelerator="cpu",
        plugins=[precision],
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model)
    return model


@pytest.fixture(scope="module")
def decoder(build_decoder: Callable[..., Decoder]) -> Decoder:
    return build_decoder(num_nextn_predict_layers=0, initializer_range=0.05)


@pytest.mark.parametrize("kind", PRECISIONS)
def test_a_short_training_lowers_the_loss(decoder: Decoder, kind: str) -> None:
    if kind == "fp8_tensorwise":
        pytest.importorskip("torchao")
    model = train(decoder, build_precision(kind, sharded=False, takes=everything), steps=30)
    assert sum(model.losses[-5:]) / 5 < 0.75 * model.losses[0]
    expected = {"fp32": torch.float32, "fp16": torch.float16}.get(kind, torch.bfloat16)
    assert model.logits_dtype == expected
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_fp32_is_lightning_s_own_plugin() -> None:
    assert type(build_precision("fp32", sharded=False)) is Precision


def test_an_overflow_skips_the_step_and_halves_the_scale(decoder: Decoder) -> None:
    precision = build_precision("fp16", sharded=False)
    assert isinstance(precision, LossScalingPrecision)
    precision.scaler.value = 2.0**60
    model = train(decoder, precision, steps=1)
    assert precision.scaler.value == 2.0**59
    assert all(torch.equal(p, q) for p, q in zip(model.decoder.parameters(), decoder.parameters(), strict=True))
    precision.scaler.value = 2.0**30
    model = train(decoder, precision, steps=40)
    assert 1 < precision.scaler.value < 2.0**29
    assert model.losses[-1] < 0.75 * model.losses[0]


def test_the_scale_changes_no_gradient(decoder: Decoder) -> None:
    losses = []
    for value in (2.0**8, 2.0**12):
        precision = build_precision("fp16", sharded=False)
        assert isinstance(precision, LossScalingPrecision)
        precision.scaler.value = value
        losses.append(train(decoder, precision, steps=6).losses)
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


@pytest.mark.parametrize("kind", PRECISIONS)
def test_sharded_parameters_are_gathered_in_16_bits_and_reduced_in_32(kind: str) -> None:
    precision = build_precision(kind, sharded=True)
    expected = {"fp32": None, "fp16": torch.float16}.get(kind, torch.bfloat16)
    assert precision.fsdp_policy.param_dtype == expected
    assert precision.fsdp_policy.reduce_dtype == torch.float32
    assert not precision.fsdp_policy.cast_forward_inputs
    with precision.forward_context():
        assert not torch.is_autocast_enabled("cpu")
    rounds_rows = getattr(precision, "quantise_rows", None) is not None
    assert rounds_rows == (kind == "fp8_deepseek")


def test_an_unknown_kind_is_refused_with_the_choice() -> None:
    with pytest.raises(ValueError, match=r"precision\.kind is 'fp4'; choose one of fp32, bf16, fp16, fp8_deepseek"):
        build_precision("fp4", sharded=False)


def test_a_saved_scale_goes_on_where_it_was() -> None:
    first, second = build_precision("fp16", sharded=True), build_precision("fp16", sharded=False)
    first.scaler.value, first.scaler.steps_without_overflow = 32.0, 7
    second.load_state_dict(first.state_dict())
    assert (second.scaler.value, second.scaler.steps_without_overflow) == (32.0, 7)
