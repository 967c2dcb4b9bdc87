"""The cross-entropy of tokens over the vocabulary, without ever holding FP32 scores of all of them.

Suffixes: R rows (tokens), D hidden, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED_TARGET = -100
# Scores of a chunk take 128 MiB in 16 bits, or more where fewer rows would keep a GPU waiting for the head's weight.
CHUNK_SCORES = 2**26
FEWEST_ROWS = 2048


def summed_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of `targets` under the scores hidden · weightᵀ, summed over all of them: a scalar in FP32.

    Args:
        hidden: [..., D] what the head reads.
        weight: [V, D] the head's.
        targets: [...] token ids; IGNORED_TARGET where there is none.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    if _runs_in_chunks(device, dtype):
        rows_per_chunk = max(FEWEST_ROWS, CHUNK_SCORES // weight.shape[0])
        rows, targets = hidden.to(dtype).flatten(0, -2), targets.flatten()
        return chunked_cross_entropy(rows, weight.to(dtype), targets, rows_per_chunk)
    return _whole_cross_entropy(hidden, weight, targets)


def _runs_in_chunks(device: str, dtype: torch.dtype) -> bool:
    """Whether to: in FP32, and on a CPU, every bit stays what torch makes it."""
    return device == "cuda" and dtype.itemsize == 2


def chunked_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, rows_per_chunk: int) -> Tensor:
    """As `summed_cross_entropy`, of `hidden` [R, D] and `targets` [R], so many rows at a time."""
    if torch.is_grad_enabled():
        return _ChunkedCrossEntropy.apply(hidden, weight, targets, rows_per_chunk)
    chunks = zip(hidden.split(rows_per_chunk), targets.split(rows_per_chunk), strict=True)
    return torch.stack([_whole_cross_entropy(rows, weight, row_targets) for rows, row_targets in chunks]).sum()


def _whole_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    scores = F.linear(hidden, weight).flatten(0, -2).float()
    return F.cross_entropy(scores, targets.flatten(), ignore_index=IGNORED_TARGET, reduction="sum")


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass: a chunk's scores give way to their gradients, and these to the operands'."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, rows_per_chunk: int) -> Tensor:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        of_hidden, of_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=exact)
        losses = torch.empty_like(targets, dtype=exact)
        for start in range(0, hidden.shape[0], rows_per_chunk):
            rows = slice(start, start + rows_per_chunk)
            scores = hidden[rows] @ weight.mT
            _replace_by_gradients(scores, targets[rows], losses[rows])
            torch.mm(scores, weight, out=of_hidden[rows])
            _add_product(of_weight, scores.mT, hidden[rows])
        ctx.save_for_backward(of_hidden, of_weight)
        ctx.weight_dtype = weight.dtype
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        # Of one dimension: a scalar would be rounded to the type of what it multiplies.
        factor = gradients[0].view(1)
        of_hidden, of_weight = ctx.saved_tensors
        rounded = torch.empty_like(of_weight, dtype=ctx.weight_dtype)
        torch.mul(of_weight, factor, out=rounded)
        return torch.mul(of_hidden, factor, out=torch.empty_like(of_hidden)), rounded, None, None


def _replace_by_gradients(scores: Tensor, targets: Tensor, losses: Tensor) -> None:
    """Fill `losses` [R] with each row's cross-entropy, and put its gradients in the place of `scores` [R, V]."""
    if scores.is_cuda:
        from lightning_modules.model.kernels.cross_entropy import replace_by_gradients

        replace_by_gradients(scores, targets, losses)
        return
    is_ignored = targets == IGNORED_TARGET
    at_target = targets.masked_fill(is_ignored, 0)[:, None]
    log_probabilities = scores.to(losses.dtype).log_softmax(dim=-1)
    losses.copy_(-log_probabilities.gather(1, at_target).squeeze(1)).masked_fill_(is_ignored, 0.0)
    gradients = log_probabilities.exp().scatter_add_(1, at_target, -torch.ones_like(log_probabilities[:, :1]))
    scores.copy_(gradients.masked_fill(is_ignored[:, None], 0.0))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add `left` · `right` to `total`, in whose type it is summed."""
    if total.is_cuda:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(left.to(total.dtype), right.to(total.dtype))
