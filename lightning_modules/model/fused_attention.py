"""torch's attention, by kernels that never hold the scores of all queries at once."""

import torch.nn.functional as F
from torch import Tensor


def fused_attention(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """Attention from [B, H, T, D] to keys [B, H, S, D] and values [B, H, S, V]: [B, H, T, V].

    Args:
        query: as above.
        key: as above.
        value: as above.
        scale: of the scores.
        mask: [B or 1, 1, T, S] which keys each query sees; None: as many tokens as its own place has, causally.
    """
    width, value_width = query.shape[-1], value.shape[-1]
    if width != value_width and takes_one_width(query):
        # Zeros change no score, and give zeros.
        widest = max(width, value_width)
        query, key, value = (F.pad(x, (0, widest - x.shape[-1])) for x in (query, key, value))
    heads = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale)
    return heads[..., :value_width]


def takes_one_width(query: Tensor) -> bool:
    """Whether the kernel for `query` knows only heads as wide as their values: a CPU's."""
    return query.is_cpu
