"""SwiGLU of many experts over rows sorted by expert, each output weighed by its gate.

Suffixes: R rows, D hidden, I intermediate, E experts.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def weighted_experts(rows: Tensor, gates: Tensor, gate_up: Tensor, down: Tensor, offsets: Tensor) -> Tensor:
    """gates · down(silu(gate(rows)) · up(rows)), each row by its own expert [R, D].

    Args:
        rows: [R, D], in order of experts.
        gates: [R].
        gate_up: [E, 2I, D], every expert's gate above its up projection.
        down: [E, D, I].
        offsets: [E] where each expert's rows end, int32.
    """
    return _WeightedExperts.apply(rows, gates, gate_up, down, offsets)


class _WeightedExperts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, gates: Tensor, gate_up: Tensor, down: Tensor, offsets: Tensor) -> Tensor:
        gate_and_up = F.grouped_mm(rows, gate_up.mT, offs=offsets)
        gate, up = gate_and_up.chunk(2, dim=-1)
        activated = F.silu(gate)
        product = activated * up
        ctx.save_for_backward(rows, gates, gate_up, down, offsets, gate_and_up, activated, product)
        return F.grouped_mm(product * gates[:, None], down.mT, offs=offsets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        of_output = gradients[0].contiguous()
        rows, gates, gate_up, down, offsets, gate_and_up, activated, product = ctx.saved_tensors
        gate, up = gate_and_up.chunk(2, dim=-1)
        of_weighted = F.grouped_mm(of_output, down, offs=offsets)
        of_down = F.grouped_mm(of_output.mT, product * gates[:, None], offs=offsets)
        of_gates = (of_weighted * product).sum(dim=-1)
        of_product = of_weighted.mul_(gates[:, None])
        of_gate_and_up = torch.empty_like(gate_and_up)
        of_gate, of_up = of_gate_and_up.chunk(2, dim=-1)
        torch.mul(of_product, activated, out=of_up)
        torch.ops.aten.silu_backward.grad_input(of_product.mul_(up), gate, grad_input=of_gate)
        of_rows = F.grouped_mm(of_gate_and_up, gate_up, offs=offsets)
        of_gate_up = F.grouped_mm(of_gate_and_up.mT, rows, offs=offsets)
        return of_rows, of_gates, of_gate_up, of_down, None
