"""Attention by stretch, against plain softmax with a mask."""

import pytest
import torch
from torch import Tensor

from lightning_modules.model.by_hand import attention

SCALE = 0.3


def tensors(n_tokens: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries and keys [2, 3, T, 4], values [2, 3, T, 5] as a projection lays them out."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(2, 3, n_tokens, 4), (2, 3, n_tokens, 4), (2, n_tokens, 3, 5)]
    query, key, value = (torch.randn(size, generator=generator, dtype=dtype) for size in sizes)
    return [x.requires_grad_() for x in (query, key, value.transpose(1, 2))]


def masked(query: Tensor, key: Tensor, value: Tensor, stretches: list[tuple[int, int, int]]) -> Tensor:
    """The reference: one softmax over whole rows, zeros where a token sees nothing."""
    n_rows, _, n_tokens, _ = query.shape
    visible = torch.zeros(n_rows, 1, n_tokens, n_tokens, dtype=torch.bool)
    for row, start, stop in stretches:
        visible[row, 0, start:stop, start:stop] = torch.ones(stop - start, stop - start, dtype=torch.bool).tril()
    scores = (query @ key.mT * SCALE).masked_fill(~visible, -1e9)
    return (scores.softmax(dim=-1) * visible) @ value


@pytest.mark.parametrize("longest_kept", [0, 1024], ids=["computed again", "kept"])
@pytest.mark.parametrize(
    "stretches", [[(0, 0, 11), (1, 0, 11)], [(0, 0, 3), (0, 3, 4), (1, 2, 9)], []], ids=["rows", "packed", "none"]
)
def test_it_is_masked_softmax_forwards_and_backwards(monkeypatch, stretches, longest_kept):
    monkeypatch.setattr(attention, "QUERIES", 4)
    monkeypatch.setattr(attention, "LONGEST_KEPT", longest_kept)
    inputs = tensors(11)
    output = attention.attend(*inputs, SCALE, stretches)
    expected = masked(*inputs, stretches)
    torch.testing.assert_close(output, expected)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=output.dtype)
    gradients = torch.autograd.grad((output * weights).sum(), inputs)
    for gradient, reference in zip(gradients, torch.autograd.grad((expected * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(gradient, reference)


def test_single_precision_stays_near_torchs_own_kernel():
    inputs = tensors(300, torch.float32)
    stretches = [(0, 0, 300), (1, 0, 300)]
    output = attention.attend(*inputs, SCALE, stretches)
    expected = torch.nn.functional.scaled_dot_product_attention(*inputs, is_causal=True, scale=SCALE)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
