"""What training minimises, against a plain float64 sum."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from lightning_modules.batch import Batch
from lightning_modules.configuration import OptimizerConfig
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import DecoderOutput
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.schedule import ScheduleConfig

OPTIMIZER, SCHEDULE = OptimizerConfig(1e-3, (0.9, 0.95), 0.1, 1e-8), ScheduleConfig(0, 1.0, 1.0)


def build_model(config: DecoderConfig, depth: int, **objective: Any) -> LanguageModel:
    torch.manual_seed(0)
    values = {"lm_weight": 1.0, "mtp_weight": 0.3, "bias_update_speed": 0.0, "sequence_balance_weight": 0.0} | objective
    config = replace(config, num_nextn_predict_layers=depth)
    return LanguageModel(config, ObjectiveConfig(**values), OPTIMIZER, SCHEDULE, max_steps=10, seed=0)


def batch_of(depth: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 40, (2, 12 + 1 + depth), generator=generator)
    documents = torch.where(torch.arange(13 + depth) < 7, 4, 9).repeat(2, 1)
    documents[1, -2:] = -1
    return Batch.whole_step(tokens, documents, depth)


def scores(model: LanguageModel, batch: Batch) -> DecoderOutput:
    depth = model.decoder.config.num_nextn_predict_layers
    return model.decoder(batch.tokens[:, :-1], batch.document_ids[:, : batch.tokens.shape[1] - 1 - depth])


def shares(model: LanguageModel, progress: float = 0.0) -> list[float]:
    return model.objective.mtp_shares(model.decoder.config.num_nextn_predict_layers, progress)


def losses_by_hand(output: DecoderOutput, batch: Batch) -> list[float]:
    """The cross-entropy of every depth, in float64, over targets of the same document alone: their mean."""
    losses = []
    for ahead, logits in enumerate([output.logits, *output.ahead_logits], start=1):
        total, n_targets, (n_rows, n_positions) = 0.0, 0, logits.shape[:2]
        for row in range(n_rows):
            for place in range(n_positions):
                here, there = batch.document_ids[row, place], batch.document_ids[row, place + ahead]
                if here == there and there >= 0:
                    log_probabilities = logits[row, place].double().log_softmax(dim=0)
                    total -= float(log_probabilities[batch.tokens[row, place + ahead]].detach())
                    n_targets += 1
        losses.append(total / n_targets)
    return losses


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_the_loss_weighs_every_depth(tiny_config: DecoderConfig, depth: int) -> None:
    weights = (0.3, 0.2, 0.05)[:depth]
    model = build_model(tiny_config, depth, lm_weight=0.8, mtp_weights=weights)
    batch = batch_of(depth)
    main, *ahead = losses_by_hand(scores(model, batch), batch)
    expected = 0.8 * main + sum(w * loss for w, loss in zip(weights, ahead, strict=True)) / max(depth, 1)
    loss, sums = model.objective_loss(model.predict(batch), batch, shares(model))
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert [name for name in sums if "mtp" in name] == [f"train/mtp_loss_{k}" for k in range(1, depth + 1)]
    for (total, count), by_hand in zip(sums.values(), [main, *ahead], strict=True):
        assert float(total / count) == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0.3), (0.67, 0.3), (0.68, 0.1), (1.0, 0.1)])
def test_the_weight_of_multi_token_prediction_falls_late_in_training(
    tiny_config: DecoderConfig, progress: float, weight: float
) -> None:
    model = build_model(tiny_config, depth=2, mtp_constant_fraction=0.676, mtp_final_ratio=1 / 3)
    batch = batch_of(2)
    main, first, second = losses_by_hand(scores(model, batch), batch)
    loss, _ = model.objective_loss(model.predict(batch), batch, shares(model, progress))
    assert float(loss) == pytest.approx(main + weight * (first + second) / 2, rel=1e-6)


def test_the_switch_loss_is_an_alternative_to_the_sequence_wise_one(tiny_config: DecoderConfig) -> None:
    batch = batch_of(1)
    plain = build_model(tiny_config, depth=1)
    output = plain.predict(batch)
    base, _ = plain.objective_loss(output, batch, shares(plain))
    for name, metric in (
        ("switch_balance_weight", "train/switch_balance_loss"),
        ("sequence_balance_weight", "train/balance_loss"),
    ):
        model = build_model(tiny_config, depth=1, **{name: 0.01})
        loss, sums = model.objective_loss(output, batch, shares(model))
        assert float(loss - base) == pytest.approx(0.01 * float(sums[metric][0]), rel=1e-4)
        assert sum("balance" in key for key in sums) == 1


def test_a_router_without_gradient_is_not_trained(tiny_config: DecoderConfig) -> None:
    alone = replace(tiny_config, num_experts_per_tok=1)
    with pytest.raises(ValueError, match="router gets no gradient.*norm_topk_prob=false"):
        build_model(alone, depth=1)
    model = build_model(replace(alone, norm_topk_prob=False), depth=1)
    batch = batch_of(1)
    loss, _ = model.objective_loss(model.predict(batch), batch, shares(model))
    loss.backward()
    assert all(router.weight.grad.abs().sum() > 0 for router in model.decoder.routers())


def test_there_is_a_weight_for_every_depth(tiny_config: DecoderConfig) -> None:
    with pytest.raises(
        ValueError, match="mtp_weights holds 2 weights, but model.num_nextn_predict_layers is 3; give one"
    ):
        build_model(tiny_config, depth=3, mtp_weights=(0.3, 0.1))
