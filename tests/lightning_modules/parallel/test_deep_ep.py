"""The DeepEP dispatcher against a stand-in with DeepEP's signatures, held against all experts in one place.

Numbers are small integers and gates are quarters, so that BF16 holds every sum exactly: results are compared in FP32.
"""

import importlib.metadata
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from lightning_modules.model.dispatch import Choice, Dispatched, Dispatcher, LocalDispatcher
from lightning_modules.model.recompute import computed_once, recomputed
from lightning_modules.parallel import deep_ep
from lightning_modules.parallel.deep_ep import DeepEPUnavailable, deep_ep_dispatcher
from lightning_modules.parallel.deep_ep_dispatcher import DeepEPDispatcher
from lightning_modules.parallel.deep_ep_transports import LegacyTransport
from lightning_modules.parallel.seats import Seat, unreachable
from lightning_modules.precision.emulation import quantise_1x128
from tests.lightning_modules.parallel.recording_deep_ep import (
    NUM_SMS,
    SIGNATURES,
    World,
    deep_ep_module,
    stub_signature,
)

N_EXPERTS = 8
N_CHOSEN = 3
N_TOKENS = 11
APIS = {"elastic": "2.1.0", "legacy": None}


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine that has all that DeepEP needs, by its own account."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 30, 4))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"deep_ep": ["wheels-of-deepep"]})
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"wheels-of-deepep": "1.2.1.post3"}[name])
    # Other ranks say what this one does, and sit on machines of their own.
    monkeypatch.setattr(dist, "all_gather_object", lambda told, mine, group: None)
    monkeypatch.setattr(deep_ep, "unreachable", lambda seats, here: None)
    return monkeypatch


def install(hopper: pytest.MonkeyPatch, world: World, api: str) -> None:
    hopper.setitem(sys.modules, "deep_ep", deep_ep_module(world, APIS[api]))


class Inputs:
    """One rank's tokens, choices, gates, and the gradient of what comes of them."""

    def __init__(self, rank: int, width: int = 16, n_tokens: int = N_TOKENS, experts: range | None = None) -> None:
        rng = torch.Generator().manual_seed(rank)
        self.tokens = torch.randint(-2, 3, (n_tokens, width), generator=rng).bfloat16()
        among = experts or range(N_EXPERTS)
        chosen = [torch.randperm(len(among), generator=rng)[:N_CHOSEN] + among[0] for _ in range(n_tokens)]
        self.indices = torch.stack(chosen)
        self.gates = torch.randint(1, 5, (n_tokens, N_CHOSEN), generator=rng) / 4
        self.gradient = torch.randint(-2, 3, (n_tokens, width), generator=rng).float()


def experts_from(first: int, rows: Tensor, gates: Tensor, rows_per_expert: Tensor) -> Tensor:
    """Expert e multiplies by 1 + e mod 3, and by the gate; here come those from `first` on."""
    numbers = torch.arange(first, first + len(rows_per_expert)).repeat_interleave(rows_per_expert)
    return rows * (gates * (1 + numbers % 3)).to(rows.dtype).unsqueeze(-1)


def run(dispatcher: Dispatcher, inputs: Inputs, first_expert: int, dtype: torch.dtype) -> list[Tensor]:
    """The output, and the gradients of tokens and gates, all in FP32."""
    tokens = inputs.tokens.to(dtype, copy=True).requires_grad_()
    gates = inputs.gates.clone().requires_grad_()
    rows, row_gates, counts, way_back = dispatcher.dispatch(dispatcher.plan(tokens, gates, inputs.indices))
    output = dispatcher.combine(experts_from(first_expert, rows, row_gates, counts), way_back)
    assert output.dtype == dtype
    output.backward(inputs.gradient.to(dtype))
    assert tokens.grad is not None
    assert gates.grad is not None
    return [output.detach().float(), tokens.grad.float(), gates.grad]


def expected(inputs: Inputs) -> list[Tensor]:
    return run(LocalDispatcher(N_EXPERTS), inputs, 0, torch.float32)


def dispatchers(world: World, quantise: Any = None) -> list[DeepEPDispatcher]:
    made = [deep_ep_dispatcher(N_EXPERTS, world.mesh(rank), quantise) for rank in range(world.n_ranks)]
    assert all(isinstance(dispatcher, DeepEPDispatcher) for dispatcher in made)
    return made  # type: ignore[return-value]


def check_against_local(world: World, ranks: list[DeepEPDispatcher], inputs: list[Inputs]) -> None:
    n_local = N_EXPERTS // world.n_ranks
    results = world.run(lambda rank: run(ranks[rank], inputs[rank], rank * n_local, torch.bfloat16))
    for rank_inputs, result in zip(inputs, results, strict=True):
        for mine, reference in zip(result, expected(rank_inputs), strict=True):
            torch.testing.assert_close(mine, reference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_stand_in_has_the_real_signatures(name: str) -> None:
    assert stub_signature(name) == SIGNATURES[name]


@pytest.mark.parametrize(("api", "n_ranks"), [("elastic", 1), ("elastic", 2), ("elastic", 4), ("legacy", 2)])
def test_outputs_and_gradients_are_those_of_experts_in_one_place(
    hopper: pytest.MonkeyPatch, api: str, n_ranks: int
) -> None:
    world = World(n_ranks)
    install(hopper, world, api)
    ranks = dispatchers(world)
    for step in range(2):  # the second time through the same buffer
        check_against_local(world, ranks, [Inputs(rank + 10 * step) for rank in range(n_ranks)])
    assert len(world.named("ElasticBuffer") + world.named("Buffer")) == n_ranks


class Doubled(torch.nn.Module):
    """Experts that keep their rows for the backward pass, and all that went before; computed once, as a mixture is."""

    def __init__(self, dispatcher: Dispatcher, first_expert: int) -> None:
        super().__init__()
        self.dispatcher, self.first_expert = dispatcher, first_expert

    def forward(self, tokens: Tensor, gates: Tensor, indices: Tensor) -> Tensor:
        return computed_once(partial(self.mix, tokens.sin(), gates, indices))

    def mix(self, tokens: Tensor, gates: Tensor, indices: Tensor) -> Tensor:
        rows, row_gates, counts, way_back = self.dispatcher.dispatch(self.dispatcher.plan(tokens, gates, indices))
        return self.dispatcher.combine(experts_from(self.first_expert, rows, row_gates, counts).tanh(), way_back)


@pytest.mark.parametrize("api", APIS)
def test_a_recomputed_block_dispatches_once(hopper: pytest.MonkeyPatch, api: str) -> None:
    world = World(2)
    install(hopper, world, api)
    ranks = dispatchers(world)

    def gradients(rank: int, call: Callable[..., Any]) -> list[Tensor]:
        inputs = Inputs(rank)
        tokens, gates = inputs.tokens.clone().requires_grad_(), inputs.gates.clone().requires_grad_()
        call(Doubled(ranks[rank], rank * N_EXPERTS // 2), tokens, gates, inputs.indices).sum().backward()
        return [tokens.grad, gates.grad]  # type: ignore[list-item]

    plain = world.run(lambda rank: gradients(rank, lambda block, *inputs: block(*inputs)))
    n_plain = len(world.calls)
    assert all(map(torch.equal, sum(plain, []), sum(world.run(lambda rank: gradients(rank, recomputed)), [])))
    first = [call for call in world.calls[n_plain:] if call["call"].endswith(".dispatch") and call["handle"] is None]
    assert len(first) == 2


@pytest.mark.parametrize("api", APIS)
def test_a_rank_that_receives_no_token_takes_part(hopper: pytest.MonkeyPatch, api: str) -> None:
    world = World(2)
    install(hopper, world, api)
    check_against_local(world, dispatchers(world), [Inputs(rank, experts=range(4)) for rank in range(2)])


class ForgetsGates(DeepEPDispatcher):
    """What comes of believing that combine applies the weights."""

    def dispatch(self, plan: Choice) -> Dispatched:
        dispatched = super().dispatch(plan)
        return dispatched._replace(gates=torch.ones_like(dispatched.gates))


class AppliesGatesTwice(DeepEPDispatcher):
    """What comes of weighing again what came back weighted."""

    def dispatch(self, plan: Choice) -> Dispatched:
        dispatched = super().dispatch(plan)
        return dispatched._replace(gates=dispatched.gates**2)


class DetachesGates(DeepEPDispatcher):
    """Right results, and a router that learns nothing from them."""

    def dispatch(self, plan: Choice) -> Dispatched:
        dispatched = super().dispatch(plan)
        return dispatched._replace(gates=dispatched.gates.detach() + 0 * dispatched.gates)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("mistaken", [ForgetsGates, AppliesGatesTwice, DetachesGates])
def test_mistakes_with_the_gates_do_not_pass(
    hopper: pytest.MonkeyPatch, api: str, mistaken: type[DeepEPDispatcher]
) -> None:
    world = World(2)
    install(hopper, world, api)
    ranks = [mistaken(d.transport, d.n_local_experts) for d in dispatchers(world)]
    with pytest.raises(AssertionError, match="not close"):
        check_against_local(world, ranks, [Inputs(rank) for rank in range(2)])


@pytest.mark.parametrize("index_type", [torch.int64, torch.int32])
def test_what_elastic_is_called_with(hopper: pytest.MonkeyPatch, index_type: torch.dtype) -> None:
    world = World(2, index_type)
    install(hopper, world, "elastic")
    inputs = [Inputs(rank) for rank in range(2)]
    check_against_local(world, dispatchers(world), inputs)
    for made in world.named("ElasticBuffer"):
        assert (made["num_max_tokens_per_rank"], made["hidden"], made["num_topk"]) == (N_TOKENS, 16, N_CHOSEN)
        assert made["deterministic"]
    first = [call for call in world.named("ElasticBuffer.dispatch") if call["handle"] is None]
    assert len(first) == 2
    for call in first:
        rank = 0 if torch.equal(call["x"], inputs[0].tokens) else 1
        assert torch.equal(call["x"], inputs[rank].tokens)
        assert call["topk_idx"].dtype == index_type
        assert torch.equal(call["topk_idx"].long(), inputs[rank].indices)
        assert torch.equal(call["topk_weights"], inputs[rank].gates)
        assert call["num_experts"] == N_EXPERTS
        assert call["num_max_tokens_per_rank"] == N_TOKENS
        assert call["expert_alignment"] == 1
    repeated = [call for call in world.named("ElasticBuffer.dispatch") if call["handle"] is not None]
    assert {tuple(call["x"].shape) for call in repeated} == {(N_TOKENS, 16)}
    assert [call["num_sms"] for call in repeated] == [NUM_SMS, NUM_SMS]
    assert all(call["topk_weights"] is None for call in repeated)
    forward, backward = [
        [call for call in world.named("ElasticBuffer.combine") if (call["topk_weights"] is not None) == gradients]
        for gradients in (False, True)
    ]
    assert len(forward) == len(backward) == 2
    for call in backward:  # gradients of gates; an expert that lives elsewhere has none here
        assert not call["topk_weights"][call["handle"].local < 0].any()


def test_what_legacy_is_called_with(hopper: pytest.MonkeyPatch) -> None:
    world = World(2)
    install(hopper, world, "legacy")
    check_against_local(world, dispatchers(world), [Inputs(rank) for rank in range(2)])
    hidden_bytes = 16 * 2
    for made in world.named("Buffer"):
        # The larger of what the two directions need.
        assert (made["num_nvl_bytes"], made["num_rdma_bytes"]) == (hidden_bytes * 2 * 3, hidden_bytes * 2 * 7)
        assert not made["low_latency_mode"]
    assert all(call["config"].kind == "dispatch" for call in world.named("Buffer.dispatch"))
    assert all(call["config"].kind == "combine" for call in world.named("Buffer.combine"))
    assert all(call["bias"] is None for call in world.named("Buffer.combine"))


def test_more_tokens_than_before_get_a_larger_buffer(hopper: pytest.MonkeyPatch) -> None:
    world = World(2)
    install(hopper, world, "elastic")
    ranks = dispatchers(world)
    for n_tokens in (5, 3, 9):
        check_against_local(world, ranks, [Inputs(rank, n_tokens=n_tokens) for rank in range(2)])
    assert [call["num_max_tokens_per_rank"] for call in world.named("ElasticBuffer")] == [5, 5, 9, 9]


@pytest.mark.parametrize("api", APIS)
def test_tokens_can_travel_in_fp8(hopper: pytest.MonkeyPatch, api: str) -> None:
    world = World(2)
    install(hopper, world, api)
    inputs = [Inputs(rank, width=256) for rank in range(2)]
    for rank_inputs in inputs:  # amax 1.75 = 448 / 256 in every block: what E4M3 holds, the scales keep exact
        rank_inputs.tokens = rank_inputs.tokens.clamp(-1, 1)
        rank_inputs.tokens[:, ::128] = 1.75
    check_against_local(world, dispatchers(world, quantise_1x128), inputs)
    name = "ElasticBuffer" if api == "elastic" else "Buffer"
    for call in world.named(f"{name}.dispatch"):
        assert isinstance(call["x"], tuple) == (call["handle"] is None)  # gradients stay BF16
    assert all(not made["use_fp8_dispatch"] for made in world.named("ElasticBuffer"))


def test_the_experts_find_the_fp8_values_that_travelled(hopper: pytest.MonkeyPatch) -> None:
    world = World(1)
    install(hopper, world, "elastic")
    (dispatcher,) = dispatchers(world, quantise_1x128)
    tokens = torch.randn(64, 256, generator=torch.Generator().manual_seed(0)).bfloat16()
    indices = torch.zeros(64, 1, dtype=torch.int64)
    rows, _, _, way_back = dispatcher.dispatch(dispatcher.plan(tokens, torch.ones(64, 1), indices))
    sent = quantise_1x128(tokens).values[way_back.tokens]
    assert not torch.equal(dispatcher.combine(rows, way_back), tokens)
    assert torch.equal(quantise_1x128(rows).values.float(), sent.flip(0).float())


def test_widths_that_fp8_scales_do_not_divide_travel_in_bf16(hopper: pytest.MonkeyPatch) -> None:
    world = World(2)
    install(hopper, world, "elastic")
    check_against_local(world, dispatchers(world, quantise_1x128), [Inputs(rank, width=144) for rank in range(2)])
    assert not any(isinstance(call["x"], tuple) for call in world.named("ElasticBuffer.dispatch"))


def test_what_cannot_travel_is_refused(hopper: pytest.MonkeyPatch) -> None:
    world = World(1)
    install(hopper, world, "elastic")
    (dispatcher,) = dispatchers(world)
    with pytest.raises(TypeError, match="strategy.dispatch=all_to_all"):
        dispatcher.dispatch(Choice(torch.ones(4, 128), torch.ones(4, 1), torch.zeros(4, 1, dtype=torch.int64)))


def too_old(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    def change(patch: pytest.MonkeyPatch) -> None:
        if name == "gpu":
            patch.setattr(torch.cuda, "is_available", lambda: False)
        elif name == "capability":
            patch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
        elif name == "cuda":
            patch.setattr(torch.version, "cuda", "12.1")
        elif name == "torch":
            patch.setattr(torch, "__version__", "2.9.1+cu128")
        elif name == "nccl":
            patch.setattr(torch.cuda.nccl, "version", lambda: (2, 27, 5))

    return change


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("gpu", "no CUDA device"),
        ("capability", "SM90, and this GPU is SM80"),
        ("cuda", "CUDA 12.3, and torch is built with 12.1"),
    ],
)
def test_a_machine_that_lacks_something_is_told_what(hopper: pytest.MonkeyPatch, what: str, reason: str) -> None:
    install(hopper, World(1), "elastic")
    too_old(what)(hopper)
    with pytest.raises(DeepEPUnavailable, match=reason):
        deep_ep_dispatcher(N_EXPERTS, World(1).mesh(0))


def test_the_older_api_asks_less_of_torch_and_nccl(hopper: pytest.MonkeyPatch) -> None:
    world = World(2)
    install(hopper, world, "legacy")
    too_old("torch")(hopper)
    too_old("nccl")(hopper)
    check_against_local(world, dispatchers(world), [Inputs(rank) for rank in range(2)])


@pytest.mark.parametrize("what", ["torch", "nccl"])
def test_the_newer_module_brings_the_older_api_for_machines_that_lack_something(
    hopper: pytest.MonkeyPatch, what: str
) -> None:
    world = World(2)
    install(hopper, world, "elastic")
    too_old(what)(hopper)
    ranks = dispatchers(world)
    assert all(isinstance(rank.transport, LegacyTransport) for rank in ranks)
    check_against_local(world, ranks, [Inputs(rank) for rank in range(2)])


def test_a_module_without_a_version_is_known_by_its_api(hopper: pytest.MonkeyPatch) -> None:
    world = World(2)
    install(hopper, world, "legacy")
    hopper.setattr(importlib.metadata, "packages_distributions", dict)
    check_against_local(world, dispatchers(world), [Inputs(rank) for rank in range(2)])
    hopper.setattr(sys.modules["deep_ep"].Buffer, "dispatch", lambda self, x: None)
    with pytest.raises(DeepEPUnavailable, match="deep_ep of unknown version is not known here"):
        deep_ep_dispatcher(N_EXPERTS, world.mesh(0))


def test_what_one_rank_lacks_keeps_all_from_it(hopper: pytest.MonkeyPatch) -> None:
    world = World(2)
    install(hopper, world, "legacy")

    def second_rank_lacks_it(told: list[Any], mine: Any, group: Any) -> None:
        told[1] = mine if isinstance(mine, Seat) else "deep_ep is not installed"

    hopper.setattr(dist, "all_gather_object", second_rank_lacks_it)
    with pytest.raises(DeepEPUnavailable, match="rank 1 cannot: deep_ep is not installed"):
        deep_ep_dispatcher(N_EXPERTS, world.mesh(0))


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ([Seat("b", 0)], None),
        ([Seat("a", 1)], None),
        ([Seat("a", 2)], "GPUs 0 and 2 of a do not reach each other"),
        ([Seat("a", 1), Seat("a", 5)], "the GPU of rank 2 is not visible"),
        ([Seat("a", 0)], "the GPU of rank 1 is not visible"),
    ],
)
def test_gpus_of_one_machine_have_to_reach_each_other(
    monkeypatch: pytest.MonkeyPatch, others: list[Seat], reason: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda here, there: there != 2)
    here = Seat("a", 0)
    why = unreachable([here, *others], here)
    assert why is None if reason is None else why is not None and why.startswith(reason)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_library_that_is_not_here", "not installed, or lacks a library"),
        ("assert False, 'Duplicate NCCL runtime found'", "AssertionError: Duplicate NCCL runtime found"),
        ("None + 'lib'", "TypeError"),
        ("raise SystemError('nvcc')", "SystemError: nvcc"),
    ],
)
def test_a_failing_import_is_a_reason_whatever_it_raises(
    hopper: pytest.MonkeyPatch, tmp_path: Path, source: str, reason: str
) -> None:
    (tmp_path / "deep_ep.py").write_text(source)
    hopper.delitem(sys.modules, "deep_ep", raising=False)
    hopper.syspath_prepend(tmp_path)
    with pytest.raises(DeepEPUnavailable, match=reason):
        deep_ep_dispatcher(N_EXPERTS, World(1).mesh(0))


@pytest.mark.parametrize(
    ("version", "told"), [("3.0.0", "3.0.0"), ("2.2.0", "2.2.0"), ("0.9", "0.9"), ("nightly", "of unknown version")]
)
def test_an_unknown_version_is_refused_by_name(hopper: pytest.MonkeyPatch, version: str, told: str) -> None:
    hopper.setitem(sys.modules, "deep_ep", deep_ep_module(World(1), version))
    with pytest.raises(DeepEPUnavailable, match=f"API of deep_ep {told} is not known here, only that of 1.0"):
        deep_ep_dispatcher(N_EXPERTS, World(1).mesh(0))


def test_a_number_of_ranks_that_it_does_not_serve_is_a_reason(hopper: pytest.MonkeyPatch) -> None:
    install(hopper, World(1), "legacy")
    with pytest.raises(DeepEPUnavailable, match="deep_ep does not serve 1 ranks"):
        deep_ep_dispatcher(N_EXPERTS, World(1).mesh(0))
    install(hopper, World(3), "elastic")
    with pytest.raises(DeepEPUnavailable, match="8 experts do not divide over 3 ranks"):
        deep_ep_dispatcher(N_EXPERTS, World(3).mesh(0))
