"""Attention within documents' borders, by one kernel of a GPU's in 16 bits."""

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.document_borders import DocumentBorders

# Of FlashAttention's kernels.
WIDEST_HEAD = 256


def fits_borders(config: DecoderConfig) -> bool:
    """Whether the kernel that attends within borders knows heads of such widths."""
    width = max(config.qk_head_dim, config.v_head_dim)
    return width <= WIDEST_HEAD and width % 8 == 0


def attend_within_borders(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    borders: DocumentBorders,
    key_borders: DocumentBorders,
    scale: float,
) -> Tensor:
    """Causal attention of every document by itself: [N, H, D] and, for the value, [M, H, V] give [N, H, V].

    Of a document that has more keys than queries, the last query sees all keys.
    """
    width = max(query.shape[-1], value.shape[-1])
    # The kernel knows heads of one width; zeros change no score, and give zeros.
    query, key, padded = (F.pad(x, (0, width - x.shape[-1])) for x in (query, key, value))
    (offsets, longest), (key_offsets, longest_key) = borders, key_borders
    heads = varlen_attn(
        query, key, padded, offsets, key_offsets, longest, longest_key, scale=scale, window_size=(-1, 0)
    )
    assert isinstance(heads, Tensor)
    return heads[..., : value.shape[-1]]
