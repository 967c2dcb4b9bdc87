"""Causal attention over one stretch of tokens after another.

torch's own kernel computes every probability once more in its backward pass; here they are kept while they are few.

Suffixes: B rows, H heads, T tokens, D width of queries and keys, V width of values; Q queries of a block, S keys up to
its end.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

# Queries whose probabilities are computed at once: keys in the future of some of them cost little, and a CPU's cache
# holds the block. Not a power of two: rows of 512 probabilities would share lines of the cache.
QUERIES = 96
# Stretches up to this length keep their probabilities, about 2 · H · T² bytes, for the backward pass.
LONGEST_KEPT = 1024

Stretches = Sequence[tuple[int, int, int]]


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float, stretches: Stretches) -> Tensor:
    """softmax(scale · query · keyᵀ) · value, causally, within each stretch; zeros outside of them.

    Args:
        query: [B, H, T, D].
        key: [B, H, T, D].
        value: [B, H, T, V].
        scale: of the scores.
        stretches: (row, start, stop), disjoint.

    Returns:
        [B, H, T, V], laid out as [B, T, H, V].
    """
    borders = torch.tensor(stretches, dtype=torch.int64).view(-1, 3)
    return attend_stretches(query, key, value, scale, borders)[0]


# An operation of its own, so that recompute knows it by name and keeps what it returns.
@torch.library.custom_op("melisma::attend_stretches", mutates_args=(), device_types="cpu")
def attend_stretches(
    query: Tensor, key: Tensor, value: Tensor, scale: float, borders: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """As `attend`, and the probabilities of every block [H, Q, S], or none of them.

    Args:
        query: as above.
        key: as above.
        value: as above.
        scale: as above.
        borders: [stretches, 3] row, start and stop of each.
    """
    output, future, kept = _zeros(value), _future(query), []
    keeps = max((stop - start for _, start, stop in borders.tolist()), default=0) <= LONGEST_KEPT
    for queries, keys, values, outputs in _by_stretch(borders, query * scale, key, value, output):
        for begin, end in _blocks(queries.shape[1]):
            probabilities = _probabilities(queries[:, begin:end], keys[:, :end], future)
            outputs[:, begin:end] = torch.bmm(probabilities, values[:, :end])
            if keeps:
                kept.append(probabilities)
    return output, kept


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, list[Tensor]]) -> None:
    query, key, value, ctx.scale, borders = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, key, value, borders, *output[1])


@torch.no_grad()
def _backward(ctx: Any, of_output: Tensor, _: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
    query, key, value, borders, *kept = ctx.saved_tensors
    of_query, of_key, of_value = _zeros(query), _zeros(key), _zeros(value)
    tensors = (query * ctx.scale, key, value, of_output, of_query, of_key, of_value)
    place, future = iter(kept), _future(query)
    for queries, keys, values, of_outputs, of_queries, of_keys, of_values in _by_stretch(borders, *tensors):
        for begin, end in _blocks(queries.shape[1]):
            block, of_block, seen = queries[:, begin:end], of_outputs[:, begin:end], keys[:, :end]
            probabilities = next(place) if kept else _probabilities(block, seen, future)
            of_values[:, :end] += torch.bmm(probabilities.mT, of_block)
            of_scores = torch.bmm(of_block, values[:, :end].mT)
            torch._softmax_backward_data(of_scores, probabilities, -1, of_scores.dtype, grad_input=of_scores)
            # Into a part of a tensor torch would multiply head by head.
            of_queries[:, begin:end] = torch.bmm(of_scores, seen)
            of_keys[:, :end] += torch.bmm(of_scores.mT, block)
    return of_query.mul_(ctx.scale), of_key, of_value, None, None


attend_stretches.register_autograd(_backward, setup_context=_keep)


def _by_stretch(borders: Tensor, *tensors: Tensor) -> Iterator[list[Tensor]]:
    """The parts [H, T, ...] of `tensors` [B, H, T, ...] that every stretch is."""
    for row, start, stop in borders.tolist():
        yield [tensor[row, :, start:stop] for tensor in tensors]


def _blocks(n_queries: int) -> Iterator[tuple[int, int]]:
    """Where the blocks of a stretch begin and end."""
    for begin in range(0, n_queries, QUERIES):
        yield begin, min(begin + QUERIES, n_queries)


def _future(like: Tensor) -> Tensor:
    """What is added to the scores of a block's own keys: -∞ to those that come after the query."""
    return like.new_full((QUERIES, QUERIES), float("-inf")).triu_(1)


def _probabilities(queries: Tensor, keys: Tensor, future: Tensor) -> Tensor:
    """What scaled queries [H, Q, D], the last of a stretch, give each of its keys [H, S, D] up to there [H, Q, S]."""
    scores = torch.bmm(queries, keys.mT)
    n_queries = queries.shape[1]
    scores[:, :, -n_queries:] += future[:n_queries, :n_queries]
    return torch.softmax(scores, dim=-1, out=scores)


def _zeros(like: Tensor) -> Tensor:
    """Zeros of this shape [B, H, T, ...], laid out as [B, T, H, ...]: the way that projections read and write them."""
    return like.new_zeros(like.transpose(1, 2).shape).transpose(1, 2)
