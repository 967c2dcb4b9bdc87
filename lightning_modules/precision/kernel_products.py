"""Linear layers, SwiGLU networks and experts on the FP8 kernels: all that happens between BF16 and BF16.

Everything is quantised where it is made, once, in both layouts: a forward pass keeps its inputs transposed, in FP8, for
the weights' gradients. Weights come with their quantised copies where somebody keeps these, and are quantised where
they are used otherwise.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lightning_modules.model import dispatch
from lightning_modules.precision.emulation import BLOCK
from lightning_modules.precision.kernels import blockwise as kernels
from lightning_modules.precision.kernels import unaligned_swiglu
from lightning_modules.precision.kernels.layouts import BothLayouts, Plan
from lightning_modules.precision.scaling import Scaling

# Quantised copies, as BothLayouts names them, one weight's after the other's; none where nobody keeps them.
Copies = Sequence[Tensor]


class KernelLinear(torch.autograd.Function):
    """y = x · Wᵀ."""

    @staticmethod
    def forward(ctx: Any, scaling: Scaling, x: Tensor, weight: Tensor, *copies: Tensor) -> Tensor:
        """Map [M, K] by [N, K] to [M, N]."""
        rows, quantised = kernels.quantise(x, scaling), _quantised(weight, copies, scaling)
        ctx.save_for_backward(weight, rows.transposed, rows.transposed_scales, *copies)
        ctx.scaling, ctx.input_dtype = scaling, x.dtype
        return kernels.multiply_rows(rows, quantised[:2], None, x.shape[0], x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the input and of the weight."""
        weight, transposed, scales, *copies = ctx.saved_tensors
        gradient, quantised = kernels.quantise(gradients[0], ctx.scaling), _quantised(weight, copies, ctx.scaling)
        of_input = kernels.multiply_rows(gradient, quantised[2:], None, gradients[0].shape[0], ctx.input_dtype)
        of_weight = kernels.multiply_plain_tokens(gradient, (transposed, scales), weight.dtype)
        return None, of_input, of_weight, *(None for _ in copies)


class KernelFeedForward(torch.autograd.Function):
    """SwiGLU: down(silu(gate(x)) · up(x))."""

    @staticmethod
    def forward(
        ctx: Any, scaling: Scaling, x: Tensor, gate: Tensor, up: Tensor, down: Tensor, *copies: Tensor
    ) -> Tensor:
        """Map [M, D] by `gate` and `up` [I, D] and `down` [D, I] to [M, D]; copies are of the former two stacked."""
        first, second = _quantised_pair(_stacked(gate, up, copies), down, copies, scaling)
        rows = kernels.quantise(x, scaling)
        gate_up = kernels.multiply_rows(rows, first[:2], None, x.shape[0], x.dtype)
        hidden = kernels.swiglu(gate_up, scaling=scaling)
        ctx.scaling = scaling
        ctx.save_for_backward(gate, up, down, gate_up, *rows[2:], *hidden[2:], *copies)
        return kernels.multiply_rows(hidden, second[:2], None, x.shape[0], x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the input and of the three weights."""
        gate, up, down, gate_up, *kept = ctx.saved_tensors
        rows, hidden, copies = kept[:2], kept[2:4], kept[4:]
        first, second = _quantised_pair(_stacked(gate, up, copies), down, copies, ctx.scaling)
        n_rows, dtype = gate_up.shape[0], gate_up.dtype
        gradient = kernels.quantise(gradients[0], ctx.scaling)
        of_down = kernels.multiply_plain_tokens(gradient, hidden, down.dtype)
        of_hidden = kernels.multiply_rows(gradient, second[2:], None, n_rows, dtype)
        of_gate_up, _ = kernels.swiglu_backward(of_hidden, gate_up, scaling=ctx.scaling)
        of_gate, of_up = kernels.multiply_plain_tokens(of_gate_up, rows, gate.dtype).chunk(2)
        of_input = kernels.multiply_rows(of_gate_up, first[2:], None, n_rows, dtype)
        return None, of_input, of_gate, of_up, of_down, *(None for _ in copies)


class KernelExperts(torch.autograd.Function):
    """Tokens through the experts they chose, and summed up again."""

    @staticmethod
    def forward(
        ctx: Any,
        scaling: Scaling,
        tokens: Tensor,
        gates: Tensor,
        gate_up_weight: Tensor,
        down_weight: Tensor,
        choices: Tensor,
        places: Tensor,
        experts: Tensor,
        spans: Tensor,
        *copies: Tensor,
    ) -> Tensor:
        """Map `tokens` [N, D], each of whose K choices counts by `gates` [N, K], to [N, D].

        Args:
            ctx: of the pass.
            scaling: what shares one scale.
            tokens: in BF16.
            gates: FP32.
            gate_up_weight: [E, 2I, D].
            down_weight: [E, D, I].
            choices: of the `Plan`, like the three that follow.
            places: see `choices`.
            experts: see `choices`.
            spans: see `choices`.
            copies: of both weights.
        """
        plan = Plan(choices, places, experts, spans)
        first, second = _quantised_pair(gate_up_weight, down_weight, copies, scaling)
        rows = kernels.quantise_routed(tokens, plan, gates.shape[1], scaling)
        gate_up = kernels.multiply_rows(rows, first[:2], plan)
        hidden = _activation(down_weight).swiglu(gate_up, gates, plan, scaling)
        ctx.scaling = scaling
        ctx.save_for_backward(gates, gate_up_weight, down_weight, *plan, gate_up, *rows[2:], *hidden[2:], *copies)
        return dispatch.sum_by_token(kernels.multiply_rows(hidden, second[:2], plan), places.view_as(gates))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the tokens, of the gates and of both weights."""
        gates, gate_up_weight, down_weight, *kept = ctx.saved_tensors
        plan, gate_up, rows, hidden, copies = Plan(*kept[:4]), kept[4], kept[5:7], kept[7:9], kept[9:]
        first, second = _quantised_pair(gate_up_weight, down_weight, copies, ctx.scaling)
        gradient = kernels.quantise_routed(gradients[0], plan, gates.shape[1], ctx.scaling)
        of_down = kernels.multiply_tokens(gradient, hidden, plan, down_weight.dtype)
        of_hidden = kernels.multiply_rows(gradient, second[2:], plan)
        of_gate_up, of_gates = _activation(down_weight).swiglu_backward(of_hidden, gate_up, gates, plan, ctx.scaling)
        of_weight = kernels.multiply_tokens(of_gate_up, rows, plan, gate_up_weight.dtype)
        of_tokens = dispatch.sum_by_token(
            kernels.multiply_rows(of_gate_up, first[2:], plan), plan.places.view_as(gates)
        )
        return None, of_tokens, of_gates, of_weight, of_down, *(None for _ in (*plan, *copies))


def _activation(down_weight: Tensor) -> ModuleType:
    """What knows SwiGLU in front of a weight [..., D, I]."""
    return kernels if down_weight.shape[-1] % BLOCK == 0 else unaligned_swiglu


def _stacked(gate: Tensor, up: Tensor, copies: Copies) -> Tensor:
    """Both weights as one, unless it is not needed."""
    return gate if copies else torch.cat((gate, up))


def _quantised(weight: Tensor, copies: Copies, scaling: Scaling) -> BothLayouts:
    return BothLayouts(*copies) if copies else kernels.quantise_weight(weight, scaling)


def _quantised_pair(first: Tensor, second: Tensor, copies: Copies, scaling: Scaling) -> tuple[BothLayouts, BothLayouts]:
    return _quantised(first, copies[:4], scaling), _quantised(second, copies[4:], scaling)
