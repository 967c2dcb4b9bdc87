"""Experts split into segments: nothing changes by default, and every routing does what it says."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.experts import MixtureOfExperts
from lightning_modules.model.router import HierarchicalRouter

CUSTOM = {"num_expert_segments": 3, "moe_intermediate_size": 48, "expert_segment_sizes": (8, 16, 24)}


def build_mixture(config: DecoderConfig, **changes: object) -> MixtureOfExperts:
    torch.manual_seed(0)
    mixture = MixtureOfExperts(replace(config, **changes))
    for parameter in mixture.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return mixture


def n_parameters(config: DecoderConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Decoder(config).parameters())


def swiglu(gate_up: Tensor, down: Tensor, token: Tensor) -> Tensor:
    gate, up = (gate_up @ token).chunk(2)
    return down @ (torch.nn.functional.silu(gate) * up)


def test_one_segment_is_no_segment(build_decoder) -> None:
    plain, one = build_decoder(), build_decoder(num_expert_segments=1, expert_segment_routing="hierarchical")
    assert plain.state_dict().keys() == one.state_dict().keys()
    tokens = torch.randint(0, 40, (2, 17))
    assert torch.equal(plain(tokens).logits, one(tokens).logits)


def test_independent_segments_are_smaller_experts(build_decoder, tiny_config: DecoderConfig) -> None:
    config = replace(tiny_config, num_expert_segments=2)
    finer = config.with_segments_as_experts()
    assert (finer.n_routed_experts, finer.moe_intermediate_size, finer.num_experts_per_tok) == (16, 8, 4)
    # The shared experts are as wide as before: twice as many of half the width.
    assert (finer.n_shared_experts, finer.num_expert_segments) == (2, 1)
    segmented, same = build_decoder(num_expert_segments=2), Decoder(finer)
    same.load_state_dict(segmented.state_dict())
    tokens = torch.randint(0, 40, (2, 17))
    assert torch.equal(segmented(tokens).logits, same(tokens).logits)
    assert segmented(tokens).routings[0].load().sum() == 2 * 16 * 4


@pytest.mark.parametrize(
    "changes",
    [{"num_expert_segments": 2}, CUSTOM, CUSTOM | {"expert_segment_routing": "hierarchical"}],
)
def test_experts_hold_as_many_parameters_split_as_whole(tiny_config: DecoderConfig, changes: dict) -> None:
    split = replace(tiny_config, **changes)
    whole = replace(tiny_config, moe_intermediate_size=split.moe_intermediate_size)
    # Only the router grows: a row for every segment, and for every expert where those are chosen first.
    n_routers = 3
    rows = split.n_routed_segments if split.routes_hierarchically else split.n_routed_segments - split.n_routed_experts
    assert n_parameters(split) - n_parameters(whole) == n_routers * rows * tiny_config.hidden_size


@pytest.mark.parametrize("routing", ["independent", "hierarchical"])
def test_segments_of_different_widths_equal_a_loop(tiny_config: DecoderConfig, routing: str) -> None:
    mixture = build_mixture(tiny_config, **CUSTOM, expert_segment_routing=routing, n_shared_experts=0)
    hidden = torch.randn(1, 20, tiny_config.hidden_size)
    output, routing_taken = mixture(hidden)
    stacks = mixture.experts.segments
    assert [stack.down_proj.shape[-1] for stack in stacks] == [8, 16, 24]
    for token, chosen, gates, result in zip(
        hidden[0], routing_taken.indices, routing_taken.gates, output[0], strict=True
    ):
        expected = torch.zeros_like(token)
        for number, gate in zip(chosen.tolist(), gates, strict=True):
            stack, expert = stacks[number % 3], number // 3
            expected += gate * swiglu(stack.gate_up_proj[expert], stack.down_proj[expert], token)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_chosen", [1, 2])
def test_hierarchical_routing_follows_its_definition(tiny_config: DecoderConfig, n_chosen: int) -> None:
    config = replace(
        tiny_config, num_expert_segments=2, expert_segment_routing="hierarchical", num_segments_per_expert=n_chosen
    )
    torch.manual_seed(0)
    router = HierarchicalRouter(config)
    torch.nn.init.normal_(router.weight, std=0.5)
    torch.nn.init.normal_(router.segment_gate.weight, std=0.5)
    router.segment_bias.uniform_(-0.3, 0.3)
    tokens = torch.randn(40, config.hidden_size)
    routing, experts = router(tokens), super(HierarchicalRouter, router).forward(tokens)
    assert routing.indices.shape == (40, config.num_segments_per_tok) == (40, 2 * n_chosen)
    scores = torch.sigmoid(tokens.double() @ router.segment_gate.weight.double().T).unflatten(1, (8, 2))
    bias = router.segment_bias.unflatten(0, (8, 2))
    for row in range(40):
        expected = {}
        for expert, gate in zip(experts.indices[row].tolist(), experts.gates[row].tolist(), strict=True):
            of_expert = scores[row, expert]
            chosen = (of_expert + bias[expert]).topk(n_chosen).indices.tolist()
            mean = of_expert[chosen].mean()
            expected |= {expert * 2 + segment: gate * (of_expert[segment] / mean).item() for segment in chosen}
        actual = dict(zip(routing.indices[row].tolist(), routing.gates[row].tolist(), strict=True))
        assert actual == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(routing.scores.unflatten(1, (8, 2)).sum(dim=2), experts.scores)


def test_an_expert_all_of_whose_segments_count_alike_is_whole(tiny_config: DecoderConfig) -> None:
    whole = build_mixture(tiny_config)
    split = MixtureOfExperts(replace(tiny_config, num_expert_segments=2, expert_segment_routing="hierarchical"))
    torch.nn.init.zeros_(split.gate.segment_gate.weight)
    gate, up = whole.experts.gate_up_proj.chunk(2, dim=1)
    # Segment s of an expert holds the s-th half of its gate, of its up and of its down projection.
    halves = torch.cat((gate.unflatten(1, (2, -1)), up.unflatten(1, (2, -1))), dim=2).flatten(0, 1)
    split.load_state_dict(
        whole.state_dict()
        | {
            "experts.gate_up_proj": halves,
            "experts.down_proj": whole.experts.down_proj.unflatten(2, (2, -1)).transpose(1, 2).flatten(0, 1),
            "gate.segment_gate.weight": split.gate.segment_gate.weight,
            "gate.segment_bias": split.gate.segment_bias,
            "gate.expert_loads": split.gate.expert_loads,
        }
    )
    hidden = torch.randn(2, 15, tiny_config.hidden_size)
    torch.testing.assert_close(split(hidden)[0], whole(hidden)[0], rtol=1e-5, atol=1e-5)


def test_segments_are_balanced_within_their_experts(tiny_config: DecoderConfig) -> None:
    config = replace(
        tiny_config, n_group=1, topk_group=1, num_expert_segments=2, expert_segment_routing="hierarchical",
        num_segments_per_expert=1,
    )  # fmt: skip
    torch.manual_seed(0)
    router = HierarchicalRouter(config)
    torch.nn.init.normal_(router.weight, std=0.1)
    torch.nn.init.normal_(router.segment_gate.weight, std=0.1)
    tokens = torch.randn(2000, config.hidden_size) + 2 * torch.randn(config.hidden_size)
    first = router(tokens).load()
    for _ in range(200):
        router.update_bias(router(tokens).load(), 0.005)
    last = router(tokens).load()
    assert first.max() / first.mean() > 3
    assert last.max() / last.mean() < 1.3
    torch.testing.assert_close(router.expert_loads.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("changes", [CUSTOM, {"num_expert_segments": 2, "expert_segment_routing": "hierarchical"}])
def test_segmented_decoders_learn_every_parameter(build_decoder, changes: dict) -> None:
    decoder = build_decoder(**changes, num_experts_per_tok=4)
    decoder(torch.randint(0, 40, (4, 33))).logits.square().mean().backward()
    without = [name for name, p in decoder.named_parameters() if not name.startswith("mtp") and p.grad is None]
    assert without == []
    assert all(
        p.grad.abs().sum() > 0
        for name, p in decoder.named_parameters()
        if "segment_gate" in name and p.grad is not None
    )


def test_a_width_of_segment_that_no_token_chose_has_a_gradient_of_zero(tiny_config: DecoderConfig) -> None:
    mixture = build_mixture(tiny_config, **CUSTOM, num_experts_per_tok=1, n_shared_experts=0, n_group=1, topk_group=1)
    with torch.no_grad():
        mixture.gate.e_score_correction_bias[:] = torch.tensor([10.0, 10.0, -10.0]).repeat(8)
    output, routing = mixture(torch.randn(1, 4, tiny_config.hidden_size))
    output.sum().backward()
    assert int((routing.indices % 3).max()) == 1
    assert not mixture.experts.segments[2].down_proj.grad.any()
    assert mixture.experts.segments[0].down_proj.grad.abs().sum() > 0
