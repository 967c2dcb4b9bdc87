"""How FSDP sums gradients over ranks."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp._fully_shard._fsdp_api import ReduceScatter


class SumInOnePlace(ReduceScatter):
    """Every rank receives its shard of all ranks' gradients, and sums them itself.

    A ring would round after each rank. Torch adds BF16 up in FP32 and rounds once, as if FP32 had travelled, which is
    twice as much.
    """

    def allocate(self, size: Sequence[int | torch.SymInt], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Room for what is sent, or for what becomes of it."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, op: Any, async_op: bool = False
    ) -> None:
        """Sum `input_tensor` [P · S] of all P ranks into `output_tensor` [S], rank p's part of it."""
        assert op == dist.ReduceOp.SUM
        assert not async_op
        shards = torch.empty_like(input_tensor)
        dist.all_to_all_single(shards, input_tensor, group=group)
        torch.sum(shards.view(group.size(), -1), dim=0, out=output_tensor)
