"""Experts in one function, against one expert after another."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model.by_hand.experts import weighted_experts

COUNTS = (2, 0, 3)


def inputs() -> list[Tensor]:
    """Rows [5, 4], gates [5], and the stacks of three experts of width 8."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((sum(COUNTS), 4), (sum(COUNTS),), (len(COUNTS), 16, 4), (len(COUNTS), 4, 8))
    tensors = [torch.randn(size, generator=generator) for size in sizes]
    tensors[1][0] = 0.0  # a gate of zero has a gradient nevertheless
    return [tensor.requires_grad_() for tensor in tensors]


def in_one(rows: Tensor, gates: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    return weighted_experts(rows, gates, gate_up, down, torch.tensor(COUNTS).cumsum(0).to(torch.int32))


def one_by_one(rows: Tensor, gates: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    outputs = []
    for part, stack, last in zip(rows.split(COUNTS), gate_up, down, strict=True):
        gate, up = (part @ stack.T).chunk(2, dim=-1)
        outputs.append((F.silu(gate) * up) @ last.T)
    return torch.cat(outputs) * gates[:, None]


@pytest.mark.parametrize("expands", [False, True], ids=["any gradient", "expanded gradient"])
def test_they_compute_what_single_experts_do_forwards_and_backwards(expands):
    ours, exact = inputs(), [tensor.detach().double().requires_grad_() for tensor in inputs()]
    output, expected = in_one(*ours), one_by_one(*exact)
    torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-5)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(output.shape, generator=generator)
    gradients = torch.autograd.grad((output if expands else output * weights).sum(), ours)
    references = torch.autograd.grad((expected if expands else expected * weights).sum(), exact)
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient.double(), reference, rtol=1e-5, atol=1e-5)
