"""SwiGLU of routed rows, each weighed by its gate, and its gradients, in one pass over memory each."""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton


def weighted_swiglu(gate_up: Tensor, gates: Tensor) -> Tensor:
    """silu(gate) · up · g of every row: `gate_up` [R, 2I], gates left and up projections right, and `gates` [R].

    Returns [R, I], in the type of `gate_up`; all arithmetic is FP32.
    """
    return _WeightedSwiGLU.apply(gate_up, gates)


class _WeightedSwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, gates: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up, gates)
        return swiglu(gate_up, gates)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gate_up, gates = ctx.saved_tensors
        of_gate_up, of_gates = swiglu_backward(gradients[0], gate_up, gates)
        return of_gate_up, of_gates


@triton_op("melisma::swiglu", mutates_args=())
def swiglu(gate_up: Tensor, gates: Tensor) -> Tensor:
    """As `weighted_swiglu`."""
    gate_up = gate_up.contiguous()
    n_rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    output = gate_up.new_empty(n_rows, width)
    if n_rows:
        wrap_triton(_swiglu)[(n_rows,)](gate_up, gates, output, width, WIDTH=triton.next_power_of_2(width), num_warps=4)
    return output


def activate(gate_up: Tensor, gates: Tensor | None = None) -> Tensor:
    """As `weighted_swiglu`, without gradients; without gates each row counts once."""
    n_rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    output = gate_up.new_empty(n_rows, width)
    _swiglu[(n_rows,)](gate_up, gates, output, width, WIDTH=triton.next_power_of_2(width), num_warps=4)
    return output


@triton_op("melisma::swiglu_backward", mutates_args=())
def swiglu_backward(gradient: Tensor, gate_up: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `gate_up` and of `gates`, from that of the output [R, I]."""
    gradient, gate_up = gradient.contiguous(), gate_up.contiguous()
    n_rows, width = gradient.shape
    of_gate_up, of_gates = torch.empty_like(gate_up), torch.empty_like(gates)
    if n_rows:
        wrap_triton(_swiglu_backward)[(n_rows,)](
            gradient, gate_up, gates, of_gate_up, of_gates, width, WIDTH=triton.next_power_of_2(width), num_warps=4
        )
    return of_gate_up, of_gates


@triton.jit
def _swiglu(gate_up, gates, output, width, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    inside = column < width
    gate = tl.load(gate_up + 2 * row * width + column, inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + (2 * row + 1) * width + column, inside, other=0.0).to(tl.float32)
    weighted = gate * tl.sigmoid(gate) * up
    if gates is not None:
        weighted *= tl.load(gates + row).to(tl.float32)
    tl.store(output + row * width + column, weighted.to(output.dtype.element_ty), inside)


@triton.jit
def _swiglu_backward(gradient, gate_up, gates, of_gate_up, of_gates, width, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    inside = column < width
    gate = tl.load(gate_up + 2 * row * width + column, inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + (2 * row + 1) * width + column, inside, other=0.0).to(tl.float32)
    outer = tl.load(gradient + row * width + column, inside, other=0.0).to(tl.float32)
    share = tl.sigmoid(gate)
    tl.store(of_gates + row, tl.sum(outer * gate * share * up).to(of_gates.dtype.element_ty))
    outer *= tl.load(gates + row).to(tl.float32)
    of_gate = outer * up * share * (1 + gate * (1 - share))
    tl.store(of_gate_up + 2 * row * width + column, of_gate.to(of_gate_up.dtype.element_ty), inside)
    of_up = outer * gate * share
    tl.store(of_gate_up + (2 * row + 1) * width + column, of_up.to(of_gate_up.dtype.element_ty), inside)
