"""What kernels of a GPU allocate, on tensors that lie nowhere."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class GpuKernels(TorchFunctionMode):
    """Sends attention and norms to the kernels that a GPU would choose, on tensors of any device."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        self.attention = attention

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.attention == "cpu":
            return func(*args, **kwargs)
        if func is F.rms_norm:
            return _FusedRMSNorm.apply(args[0], kwargs["weight"])
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        return func(*args, **kwargs)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None,
        scale: float,
        is_causal: bool = False,
    ) -> Tensor:
        bias = _as_bias(attn_mask, query)
        # cuDNN knows types of 16 bits alone.
        if self.attention == "cudnn" and query.dtype != torch.float32:
            attend = torch.ops.aten._scaled_dot_product_cudnn_attention
            return attend(query, key, value, bias, True, 0.0, is_causal, False, scale=scale)[0]
        attend = torch.ops.aten._scaled_dot_product_efficient_attention
        return attend(query, key, value, bias, True, 0.0, is_causal, scale=scale)[0]


def _as_bias(mask: Tensor | None, query: Tensor) -> Tensor | None:
    """A mask [B, 1, T, S] of booleans as torch hands it to a kernel: zeros and infinities of the queries' type."""
    if mask is None:
        return None
    zero, infinity = query.new_zeros(()), query.new_full((), float("-inf"))
    return torch.where(mask.logical_not(), infinity, zero).expand(-1, query.shape[1], -1, -1)


class _FusedRMSNorm(torch.autograd.Function):
    """A GPU's norm keeps its input and a number a row; that of a CPU keeps two more tensors of the input's size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight)


def _grouped_mm(left: Tensor, right: Tensor, offsets: Tensor, *_: Any) -> Tensor:
    """The result's shape: [R, K] by [E, K, N] is [R, N]; [N, R] by [R, K] is [E, N, K]. Torch's own knows only BF16."""
    size = (left.shape[0], right.shape[-1])
    return left.new_empty(size if right.ndim == 3 else (len(offsets), *size))


def _scaled_grouped_mm(left: Tensor, right: Tensor, *scales_and_offsets: Any) -> Tensor:
    """The same in FP8 with scales, in BF16; the offsets come after three arguments for the scales of either side."""
    size = (left.shape[0], right.shape[-1])
    shape = size if right.ndim == 3 else (len(scales_and_offsets[6]), *size)
    return left.new_empty(shape, dtype=torch.bfloat16)


def _mm(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """A product [R, K] by [K, N] in a type of its own, which only a GPU knows."""
    return left.new_empty(left.shape[0], right.shape[1], dtype=dtype)


# Operations that tensors without memory do not know, or not in every type, and what allocates the same results.
SHAPE_ONLY: dict[Any, Callable[..., Tensor]] = {
    torch.ops.aten.mm.dtype: _mm,
    torch.ops.aten._grouped_mm.default: _grouped_mm,
    torch.ops.aten._scaled_grouped_mm_v2.default: _scaled_grouped_mm,
}
