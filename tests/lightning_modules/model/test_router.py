"""Routing and balance losses, against float64 written from the papers; balancing, on skewed inputs."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.dispatch import LocalDispatcher
from lightning_modules.model.experts import GroupedExperts, grouped_linear
from lightning_modules.model.router import (
    Router,
    expert_loads,
    joined,
    sequence_balance_loss,
    switch_balance_loss,
    update_biases,
)


def build_router(config: DecoderConfig) -> Router:
    torch.manual_seed(0)
    router = Router(config)
    torch.nn.init.normal_(router.weight, std=0.5)
    router.e_score_correction_bias.uniform_(-0.2, 0.2)
    return router


def test_choice_and_gates_follow_the_paper(tiny_config: DecoderConfig) -> None:
    router = build_router(tiny_config)
    tokens = torch.randn(50, tiny_config.hidden_size)
    routing = router(tokens)
    group_size = tiny_config.n_routed_experts // tiny_config.n_group
    for row, token in enumerate(tokens.double()):
        score = torch.sigmoid(router.weight.double() @ token)
        biased = score + router.e_score_correction_bias
        groups = sorted(
            range(tiny_config.n_group),
            key=lambda g: biased[g * group_size : (g + 1) * group_size].sort(descending=True).values[:2].sum(),
        )[-tiny_config.topk_group :]
        candidates = [e for e in range(tiny_config.n_routed_experts) if e // group_size in groups]
        chosen = sorted(candidates, key=lambda e: biased[e])[-tiny_config.num_experts_per_tok :]
        assert set(routing.indices[row].tolist()) == set(chosen)
        for expert, gate in zip(routing.indices[row].tolist(), routing.gates[row].tolist(), strict=True):
            expected = tiny_config.routed_scaling_factor * score[expert] / score[chosen].sum()
            assert gate == pytest.approx(expected.item(), rel=1e-5)


def test_softmax_scores_follow_their_closed_form(tiny_config: DecoderConfig) -> None:
    config = replace(tiny_config, scoring_func="softmax", norm_topk_prob=False, n_group=1, topk_group=1)
    router = build_router(config)
    tokens = torch.randn(60, config.hidden_size)
    routing = router(tokens)
    exponentials = (tokens.double() @ router.weight.double().T).exp()
    scores = exponentials / exponentials.sum(dim=1, keepdim=True)
    chosen = (scores + router.e_score_correction_bias).topk(2, dim=1).indices
    torch.testing.assert_close(routing.scores.double(), scores, rtol=1e-5, atol=1e-7)
    assert torch.equal(routing.indices.sort(dim=1).values, chosen.sort(dim=1).values)
    expected = 2.5 * scores.gather(1, routing.indices)
    torch.testing.assert_close(routing.gates.double(), expected, rtol=1e-5, atol=1e-7)


BALANCING_STEPS = 120


@pytest.mark.parametrize("speed", [0.0, 0.005])
def test_the_bias_balances_skewed_routing(tiny_config: DecoderConfig, speed: float) -> None:
    config = replace(tiny_config, n_group=1, topk_group=1)
    router = build_router(config)
    with torch.no_grad():
        router.weight *= 0.2  # scores far from saturation, where a bias of a few tenths can still move the choice
        router.e_score_correction_bias.zero_()
    generator = torch.Generator().manual_seed(0)
    skew = torch.randn(config.hidden_size, generator=generator) * 2
    tokens = torch.randn(4000, config.hidden_size, generator=generator) + skew

    def busiest() -> float:
        load = router(tokens).load()
        return float(load.max() / load.mean())

    assert busiest() > 3
    for _ in range(BALANCING_STEPS):
        router.update_bias(router(tokens).load(), speed)
    assert busiest() < 1.2 if speed else busiest() > 3


def test_loads_of_micro_batches_balance_like_one_large_batch(tiny_config: DecoderConfig) -> None:
    large, small = build_router(tiny_config), build_router(tiny_config)
    for step in range(20):
        tokens = torch.randn(400, tiny_config.hidden_size, generator=torch.Generator().manual_seed(step)) + 0.5
        large.update_bias(large(tokens).load(), 0.01)
        small.update_bias(sum(small(part).load() for part in tokens.chunk(4)), 0.01)
    assert torch.equal(large.e_score_correction_bias, small.e_score_correction_bias)
    assert torch.equal(large.expert_loads, small.expert_loads)


def test_expert_loads_follow_the_share_of_tokens(tiny_config: DecoderConfig) -> None:
    router = build_router(tiny_config)
    load = torch.tensor([80.0, 0, 0, 0, 0, 0, 0, 20.0])
    for _ in range(1000):
        router.update_bias(load, 0.0)
    torch.testing.assert_close(router.expert_loads, load / 100, rtol=0, atol=1e-4)


def test_balance_loss_is_one_when_balanced_and_grows_with_skew(tiny_config: DecoderConfig) -> None:
    router = build_router(replace(tiny_config, n_group=1, topk_group=1))
    with torch.no_grad():
        router.weight.zero_()
        router.e_score_correction_bias.zero_()
    balanced = router(torch.randn(64, tiny_config.hidden_size))
    assert float(sequence_balance_loss(balanced, 4)) == pytest.approx(1.0)
    with torch.no_grad():
        router.weight[:2] = 5.0
    skewed = router(torch.ones(64, tiny_config.hidden_size))
    # Two of eight experts get everything: f is 4 for each, P their share of the scores.
    shares = 2 / (2 + 6 * 0.5)
    assert float(sequence_balance_loss(skewed, 4)) == pytest.approx(4 * shares, rel=1e-4)


@pytest.mark.parametrize("scoring_func", ["sigmoid", "softmax"])
def test_balance_losses_follow_their_closed_forms(tiny_config: DecoderConfig, scoring_func: str) -> None:
    router = build_router(replace(tiny_config, scoring_func=scoring_func))
    routing = router(torch.randn(3 * 20, tiny_config.hidden_size))
    probabilities = routing.scores.double() / routing.scores.double().sum(dim=1, keepdim=True)

    # Equation 18 takes the best of the scores, without the bias that decided where tokens went.
    best = routing.scores.topk(2, dim=1).indices
    assert not torch.equal(best.sort(dim=1).values, routing.indices.sort(dim=1).values)

    def imbalance(rows: slice | list[int]) -> float:
        """E · Σ_i (fraction of best scores on i) · (mean probability of i)."""
        fraction = torch.bincount(best[rows].flatten(), minlength=8).double() / best[rows].numel()
        return float(8 * (fraction * probabilities[rows].mean(dim=0)).sum())

    assert float(switch_balance_loss(routing)) == pytest.approx(imbalance(slice(None)), rel=1e-6)
    by_sequence = [imbalance(slice(start, start + 20)) for start in (0, 20, 40)]
    assert float(sequence_balance_loss(routing, 3)) == pytest.approx(sum(by_sequence) / 3, rel=1e-6)

    are_real = torch.arange(60) % 20 < torch.tensor([20, 13, 2]).repeat_interleave(20)
    padded = routing._replace(are_real=are_real)
    assert float(switch_balance_loss(padded)) == pytest.approx(imbalance(are_real.nonzero()[:, 0].tolist()), rel=1e-6)
    by_sequence = [imbalance(slice(0, 20)), imbalance(slice(20, 33)), imbalance(slice(40, 42))]
    assert float(sequence_balance_loss(padded, 3)) == pytest.approx(sum(by_sequence) / 3, rel=1e-6)
    assert torch.equal(padded.load(), torch.bincount(routing.indices[are_real].flatten(), minlength=8).float())


def test_padding_steers_no_balance(tiny_config: DecoderConfig) -> None:
    """Fourteen tokens and 86 of padding: what the router learns is what the fourteen alone would teach."""
    router = build_router(tiny_config)
    tokens, padding = torch.randn(14, tiny_config.hidden_size), torch.randn(86, tiny_config.hidden_size)
    alone = router(tokens)
    sequence_balance_loss(alone, 1).backward()
    (expected,), router.weight.grad = (router.weight.grad,), None
    padded = router(torch.cat((tokens, padding)))._replace(are_real=torch.arange(100) < 14)
    sequence_balance_loss(padded, 1).backward()
    torch.testing.assert_close(router.weight.grad, expected, rtol=1e-4, atol=1e-8)
    assert torch.equal(padded.load(), alone.load())
    assert padded.load().sum() == 14 * tiny_config.num_experts_per_tok


def test_the_auxiliary_loss_alone_can_balance(tiny_config: DecoderConfig) -> None:
    router = build_router(replace(tiny_config, n_group=1, topk_group=1, scoring_func="softmax"))
    with torch.no_grad():
        router.e_score_correction_bias.zero_()
        router.weight *= 0.2
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1000, tiny_config.hidden_size, generator=generator)
    tokens = tokens + torch.randn(tiny_config.hidden_size, generator=generator) * 2
    optimizer = torch.optim.Adam([router.weight], lr=1e-2)
    ratios = []
    for _ in range(100):
        routing = router(tokens)
        ratios.append(float(routing.load().max() / routing.load().mean()))
        optimizer.zero_grad()
        switch_balance_loss(routing).backward()
        optimizer.step()
    assert ratios[0] > 3
    assert ratios[-1] < 1.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_experts_can_be_compiled(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    rows, weight, ends = torch.randn(6, 8, dtype=dtype), torch.randn(2, 8, 8, dtype=dtype), torch.tensor([2, 6]).int()
    compiled = torch.compile(grouped_linear, backend="eager")
    torch.testing.assert_close(compiled(rows, weight, ends), grouped_linear(rows, weight, ends))


def test_grouped_experts_equal_a_loop_over_tokens() -> None:
    torch.manual_seed(0)
    experts = GroupedExperts(n_experts=4, hidden_size=8, intermediate_size=16)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    tokens = torch.randn(10, 8)
    indices = torch.stack([torch.randperm(3)[:2] for _ in range(10)])  # expert 3 gets nothing
    gates = torch.rand(10, 2)
    dispatcher = LocalDispatcher(4)
    rows, row_gates, counts, way_back = dispatcher.dispatch(dispatcher.plan(tokens, gates, indices))
    output = dispatcher.combine(experts(rows, row_gates, counts), way_back)
    for token, chosen, weights, result in zip(tokens, indices, gates, output, strict=True):
        expected = torch.zeros(8)
        for expert, weight in zip(chosen, weights, strict=True):
            gate, up = (experts.gate_up_proj[expert] @ token).chunk(2)
            expected += weight * (experts.down_proj[expert] @ (torch.nn.functional.silu(gate) * up))
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_layers_balance_together_as_each_does_alone(tiny_config: DecoderConfig, padded: bool) -> None:
    routers = [Router(tiny_config) for _ in range(3)]
    for seed, router in enumerate(routers):
        torch.manual_seed(seed)
        torch.nn.init.normal_(router.weight)
    tokens = torch.randn(12, tiny_config.hidden_size)
    are_real = torch.arange(12) % 4 < 3 if padded else None
    routings = [router(tokens)._replace(are_real=are_real) for router in routers]
    loads = torch.stack([routing.load() for routing in routings])
    assert torch.equal(expert_loads(routings), loads)
    by_sequence = torch.stack([sequence_balance_loss(routing, 4) for routing in routings]).mean()
    torch.testing.assert_close(sequence_balance_loss(joined(routings), 3 * 4), by_sequence)
    by_batch = torch.stack([switch_balance_loss(routing) for routing in routings]).mean()
    torch.testing.assert_close(switch_balance_loss(joined(routings), n_layers=3), by_batch)
    others = deepcopy(routers)
    update_biases(routers, loads, speed=0.01)
    for router, other, load in zip(routers, others, loads, strict=True):
        other.update_bias(load, 0.01)
        assert torch.equal(router.e_score_correction_bias, other.e_score_correction_bias)
        torch.testing.assert_close(router.expert_loads, other.expert_loads)
