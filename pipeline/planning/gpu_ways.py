"""The ways that a decoder goes on a GPU, for tensors that lie nowhere: Triton's kernels yield shapes alone.

What a recompute policy names is an operation here too, so that it is kept or repeated alike.
"""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model import dispatch, experts, fused_attention, recompute, token_loss
from lightning_modules.model.exact_product import exact_linear
from lightning_modules.model.router import Router
from lightning_modules.model.sharded import whole
from lightning_modules.parallel import selection

# The kernels' library, and that of their shapes.
KERNELS, SHAPES = "melisma", "melisma_shapes"


def gpu_ways() -> Iterator[Any]:
    """Patches by which the decoder goes these ways on tensors of any device."""
    kept = {name.replace(f"{KERNELS}::", f"{SHAPES}::") for name in recompute.KEPT_OPERATIONS}
    yield mock.patch.object(recompute, "KEPT_OPERATIONS", recompute.KEPT_OPERATIONS | kept)
    yield mock.patch.object(fused_attention, "takes_one_width", _never)
    for module in (dispatch, selection):
        yield mock.patch.object(module, "_spread", spread_rows)
        yield mock.patch.object(module, "_sum", _sum)
    yield mock.patch.object(experts, "weighted_swiglu", _WeightedSwiGLU.apply)
    yield mock.patch.object(Router, "logits", _logits)
    yield mock.patch.object(Router, "_choose", _choose)
    yield mock.patch.object(token_loss, "_runs_in_chunks", lambda device, dtype: dtype.itemsize == 2)
    yield mock.patch.object(token_loss, "_replace_by_gradients", _in_place)
    yield mock.patch.object(token_loss, "_add_product", _in_place)


@torch.library.custom_op(f"{SHAPES}::spread_rows", mutates_args=())
def spread_rows(tokens: Tensor, order: Tensor, n_chosen: int) -> Tensor:
    """As `melisma::spread_rows`."""
    return tokens.new_empty(order.numel(), tokens.shape[1])


@torch.library.custom_op(f"{SHAPES}::choose_experts", mutates_args=())
def choose_experts(scores: Tensor, n_chosen: int) -> Tensor:
    """As `melisma::choose_experts`."""
    return scores.new_empty(scores.shape[0], n_chosen, dtype=torch.int64)


@spread_rows.register_fake
def _(tokens: Tensor, order: Tensor, n_chosen: int) -> Tensor:
    return tokens.new_empty(order.numel(), tokens.shape[1])


@choose_experts.register_fake
def _(scores: Tensor, n_chosen: int) -> Tensor:
    return scores.new_empty(scores.shape[0], n_chosen, dtype=torch.int64)


def _choose(router: Router, biased_scores: Tensor) -> Tensor:
    return choose_experts(biased_scores, router.n_chosen)


def _sum(rows: Tensor, places: Tensor) -> Tensor:
    return rows.new_empty(places.shape[0], rows.shape[1])


def _logits(router: Router, hidden: Tensor) -> Tensor:
    weight = whole(router.weight)
    if hidden.dtype == torch.bfloat16 and weight.dtype == torch.float32:
        return exact_linear(hidden, weight)
    return F.linear(hidden.float(), weight.float())


class _WeightedSwiGLU(torch.autograd.Function):
    """Keeps what the kernel's own does."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, gates: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up, gates)
        return gate_up.new_empty(gate_up.shape[0], gate_up.shape[1] // 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gate_up, gates = ctx.saved_tensors
        return torch.empty_like(gate_up), torch.empty_like(gates)


def _never(_: Tensor) -> bool:
    return False


def _in_place(*_: Tensor) -> None:
    """Fills what is there already; a mock would keep its arguments alive."""
