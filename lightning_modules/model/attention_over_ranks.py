"""Attention from a rank's part of rows to all of them (context parallelism).

Suffixes as in `attention.py`; C tokens of a run.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lightning_modules.model.attention_kept import attention_kept
from lightning_modules.model.key_spans import attend_spans
from lightning_modules.model.shared_rows import Run, Sharing
from lightning_modules.model.within_borders import attend_within_borders

Expand = Callable[[Tensor], tuple[Tensor, Tensor]]


def attend_over_ranks(query: Tensor, compressed: Tensor, expand: Expand, sharing: Sharing, scale: float) -> Tensor:
    """From this rank's part of rows to all of them, as all ranks hold them; [2B, C, H, value_dim].

    What travels is what stands for a token's keys and values: those of all heads are many times as much. Every rank
    expands all of them, and once more for the backward pass.

    Args:
        query: [2B, C, H, nope + P], rotated.
        compressed: [2B, C, R + P] what travels.
        expand: makes keys [B, S, H, nope + P] and values [B, S, H, value_dim] of all ranks' [B, S, R + P].
        sharing: the rows, and what this rank's runs of them may see.
        scale: of the scores.
    """
    return attention_kept(partial(_gather_and_attend, expand=expand, sharing=sharing, scale=scale), query, compressed)


def _gather_and_attend(query: Tensor, compressed: Tensor, expand: Expand, sharing: Sharing, scale: float) -> Tensor:
    key, value = expand(sharing.rows.whole(compressed))
    queries = query.unflatten(0, (-1, 2)).unbind(dim=1)
    heads = [
        attend_run(queries_of_run, key, value, run, scale)
        for queries_of_run, run in zip(queries, sharing.runs, strict=True)
    ]
    return torch.stack(heads, dim=1).flatten(0, 1)


def attend_run(query: Tensor, key: Tensor, value: Tensor, run: Run, scale: float) -> Tensor:
    """From a run of every row [B, C, H, D] to keys [B, T, H, D] and values [B, T, H, V] up to its end: [B, C, H, V]."""
    key, value = key[:, : run.stop], value[:, : run.stop]
    if run.borders is not None and run.key_borders is not None:
        tokens = (query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1))
        heads = attend_within_borders(*tokens, run.borders, run.key_borders, scale)
        return heads.unflatten(0, query.shape[:2])
    query, key, value = (heads.transpose(1, 2) for heads in (query, key, value))
    assert run.spans is not None
    return attend_spans(query, key, value, run.spans, scale).transpose(1, 2)
