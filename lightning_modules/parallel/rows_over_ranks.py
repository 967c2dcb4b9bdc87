"""Rows whose tokens are spread over ranks."""

import torch.distributed as dist
from torch import Tensor

from lightning_modules.model.shared_rows import SharedRows
from lightning_modules.parallel.exchanges import Ranks, arrived, set_out, sum_over_ranks


class RowsOverRanks(SharedRows):
    """Rows that the ranks of `group` share.

    All ranks gather what they have of a row, and send gradients back to where it came from, added up in FP32.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        super().__init__(dist.get_rank(group), dist.get_world_size(group))
        self._ranks = Ranks(self.n_ranks, group.group_name)

    def whole(self, part: Tensor) -> Tensor:
        """Rows [B, T, ...] of all ranks' parts [2B, C, ...]; gradients of all ranks are summed."""
        return self.joined(arrived(set_out(part, self._ranks), self._ranks))

    def add_up(self, sums: Tensor) -> Tensor:
        """All ranks' `sums` together, without a gradient."""
        return sum_over_ranks(sums.detach(), self._ranks)
