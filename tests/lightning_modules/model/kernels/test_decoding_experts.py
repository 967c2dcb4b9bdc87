"""Experts of a step's rows against torch in double precision; under TRITON_INTERPRET=1 without a GPU."""

import os
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model.router import Router
from tests.conftest import TINY

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("the kernels run on a GPU or under TRITON_INTERPRET=1", allow_module_level=True)

from lightning_modules.model.decoding.gpu_network import choice_of  # noqa: E402
from lightning_modules.model.kernels import chosen_experts, grouped_experts  # noqa: E402
from lightning_modules.model.kernels.chosen_experts import Experts  # noqa: E402
from lightning_modules.model.kernels.expert_ranks import Choices, choose  # noqa: E402
from lightning_modules.model.kernels.few_rows import Matrix, Norm  # noqa: E402
from lightning_modules.model.kernels.sorted_choices import sort_choices  # noqa: E402
from tests.lightning_modules.model.kernels.few_rows_cases import assert_rounded, both_types, draw, normalised  # noqa: E402

N_EXPERTS, HIDDEN, WIDTH = 8, 96, 40


def network(n_shared: int, dtype: torch.dtype) -> Experts:
    routed = (
        Matrix(draw(N_EXPERTS, 2 * WIDTH, HIDDEN, dtype=dtype)),
        Matrix(draw(N_EXPERTS, HIDDEN, WIDTH, dtype=dtype)),
    )
    if not n_shared:
        return Experts(None, None, None, *routed, 0, WIDTH)
    gate, up = (Matrix(draw(n_shared * WIDTH, HIDDEN, dtype=dtype)) for _ in range(2))
    return Experts(gate, up, Matrix(draw(HIDDEN, n_shared * WIDTH, dtype=dtype)), *routed, n_shared, WIDTH)


def draw_choices(n_rows: int) -> Choices:
    """Two experts a row, of which some have many rows and one has none."""
    indices = torch.stack([torch.randperm(N_EXPERTS - 1)[:2] for _ in range(n_rows)]).clamp_max(4)
    return Choices(indices.int().to(DEVICE), torch.rand(n_rows, 2, device=DEVICE))


def expected(x: Tensor, experts: Experts, choices: Choices) -> Tensor:
    """What shared and chosen experts make of normalised rows [N, D]; activations are rounded as they are stored."""
    indices, dtype = choices.indices.long(), experts.gate_up.values.dtype
    gate_up = torch.einsum("nd,nkid->nki", x, experts.gate_up.values.double()[indices])
    gate, up = gate_up.chunk(2, dim=-1)
    activated = (F.silu(gate) * up * choices.weights.double()[:, :, None]).to(dtype).double()
    output = torch.einsum("nki,nkdi->nd", activated, experts.routed_down.values.double()[indices])
    if experts.n_shared:
        shared = F.silu(x @ experts.gate.values.double().mT) * (x @ experts.up.values.double().mT)
        output += shared.to(dtype).double() @ experts.down.values.double().mT
    return output


@both_types
@pytest.mark.parametrize("n_rows", [1, 3])
@pytest.mark.parametrize("n_shared", [0, 1, 2])
def test_few_rows_go_through_the_chosen_experts(n_rows: int, n_shared: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    experts, choices = network(n_shared, dtype), draw_choices(n_rows)
    hidden, weight = draw(n_rows, HIDDEN, dtype=dtype), draw(HIDDEN, dtype=dtype) + 1
    activations = chosen_experts.activate(hidden, Norm(weight, 1e-6), experts, choices)
    output = chosen_experts.project_down(activations, hidden, experts, choices)
    assert_rounded(output, hidden.double() + expected(normalised(hidden, weight), experts, choices))


@both_types
def test_few_rows_go_through_a_dense_network(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    width = 1100
    gate, up, down = (
        draw(width, HIDDEN, dtype=dtype),
        draw(width, HIDDEN, dtype=dtype),
        draw(HIDDEN, width, dtype=dtype),
    )
    dense = Experts(Matrix(gate), Matrix(up), Matrix(down), None, None, 1, width)
    hidden, weight = draw(2, HIDDEN, dtype=dtype), draw(HIDDEN, dtype=dtype) + 1
    activations = chosen_experts.activate(hidden, Norm(weight, 1e-6), dense, None)
    x = normalised(hidden, weight)
    activated = F.silu(x @ gate.double().mT) * (x @ up.double().mT)
    assert_rounded(activations[:, 0], activated)
    output = chosen_experts.project_down(activations, hidden, dense, None)
    assert_rounded(output, hidden.double() + activations[:, 0].double() @ down.double().mT)


@both_types
@pytest.mark.parametrize(("n_rows", "n_shared"), [(6, 1), (70, 2), (40, 0)])
def test_many_rows_share_the_chosen_experts(n_rows: int, n_shared: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    experts, choices = network(n_shared, dtype), draw_choices(n_rows)
    tokens, residual = draw(n_rows, HIDDEN, dtype=dtype), draw(n_rows, HIDDEN, dtype=dtype)
    order = sort_choices(choices.indices, N_EXPERTS)
    activations = grouped_experts.activate(tokens, experts, order, choices.weights)
    output = grouped_experts.project_down(activations, residual, experts, order)
    assert_rounded(output, residual.double() + expected(tokens.double(), experts, choices))


def test_choices_are_sorted_by_expert() -> None:
    torch.manual_seed(0)
    indices = draw_choices(150).indices
    order = sort_choices(indices, N_EXPERTS)
    flat = indices.flatten().long()
    assert torch.equal(order.choices.long(), flat.argsort(stable=True))
    assert torch.equal(order.choices[order.places.long()].flatten().long(), torch.arange(300, device=DEVICE))
    assert torch.equal(order.ends.long(), torch.bincount(flat, minlength=N_EXPERTS).cumsum(0))


@pytest.mark.parametrize(("n_experts", "n_groups", "kept", "n_chosen"), [(8, 4, 2, 2), (8, 1, 1, 2), (60, 5, 3, 4)])
@pytest.mark.parametrize("scoring", ["sigmoid", "softmax"])
def test_experts_are_chosen_as_the_router_does(
    n_experts: int, n_groups: int, kept: int, n_chosen: int, scoring: str
) -> None:
    torch.manual_seed(0)
    config = replace(
        TINY,
        n_routed_experts=n_experts,
        n_group=n_groups,
        topk_group=kept,
        num_experts_per_tok=n_chosen,
        scoring_func=scoring,
        norm_topk_prob=scoring == "sigmoid",
        hidden_size=64,
    )
    router = Router(config).to(DEVICE)
    torch.nn.init.eye_(router.weight)
    torch.nn.init.normal_(router.e_score_correction_bias, std=0.1)
    hidden = torch.randn(50, 64, device=DEVICE)
    routing, choices = router(hidden), choose(hidden[:, :n_experts].contiguous(), choice_of(router))
    indices, places = routing.indices.sort(dim=-1)
    got, got_places = choices.indices.long().sort(dim=-1)
    assert torch.equal(got, indices)
    torch.testing.assert_close(choices.weights.gather(1, got_places), routing.gates.gather(1, places))
