"""Keys and values of many tokens, which are cheaper to expand again than to keep; attention itself is not."""

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

# By name, since not every build of torch has all of these.
ATTENTION_OPERATIONS = {
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "torch_attn::_varlen_attn",
}

# Whether all around is computed once more for the backward pass anyway.
repeats_all: ContextVar[bool] = ContextVar("repeats_all", default=False)


def attention_kept(attend: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Call `attend`; for the backward pass keep `inputs` and what attention yields, and repeat all else within."""
    if not torch.is_grad_enabled() or (not torch.compiler.is_compiling() and repeats_all.get()):
        return attend(*inputs)
    contexts = partial(create_selective_checkpoint_contexts, _policy)
    return checkpoint(attend, *inputs, use_reentrant=False, context_fn=contexts, preserve_rng_state=False)


def _policy(_: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    keeps = operation.name() in ATTENTION_OPERATIONS
    return CheckpointPolicy.MUST_SAVE if keeps else CheckpointPolicy.PREFER_RECOMPUTE
