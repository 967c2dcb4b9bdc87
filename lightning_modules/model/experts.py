"""Feed-forward networks: dense, and a mixture of routed and shared experts.

Suffixes: R routed rows, D hidden, I intermediate, E experts, K chosen experts a token, S segments an expert.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.dispatch import LocalDispatcher
from lightning_modules.model.router import HierarchicalRouter, Router, Routing


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x))."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class GroupedExperts(nn.Module):
    """The routed experts' weights, stacked, and applied to rows sorted by expert with one grouped matmul each.

    `gate_up_proj` [E, 2I, D] holds every expert's gate above its up projection; `down_proj` is [E, D, I].
    """

    def __init__(self, n_experts: int, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(n_experts, 2 * intermediate_size, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(n_experts, hidden_size, intermediate_size))

    def forward(self, rows: Tensor, rows_per_expert: Tensor) -> Tensor:
        """Apply expert e to its `rows_per_expert[e]` rows of `rows` [R, D], which lie in order of experts."""
        offsets = rows_per_expert.cumsum(0).to(torch.int32)
        gate, up = self._grouped_linear(rows, self.gate_up_proj, offsets).chunk(2, dim=-1)
        return self._grouped_linear(F.silu(gate) * up, self.down_proj, offsets)

    @staticmethod
    def _grouped_linear(rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
        # Autocast does not know grouped_mm: its operands are brought to the autocast type here.
        if torch.is_autocast_enabled(rows.device.type):
            dtype = torch.get_autocast_dtype(rows.device.type)
            rows, weight = rows.to(dtype), weight.to(dtype)
        return F.grouped_mm(rows, weight.mT, offs=offsets)


class SegmentedExperts(nn.Module):
    """Experts split into segments of different widths: one stack of all experts' segments for each place in the split.

    Segment s of expert e is number e · S + s.
    """

    def __init__(self, n_experts: int, hidden_size: int, segment_sizes: Sequence[int]) -> None:
        super().__init__()
        self.segments = nn.ModuleList(GroupedExperts(n_experts, hidden_size, size) for size in segment_sizes)

    def forward(self, rows: Tensor, rows_per_segment: Tensor) -> Tensor:
        """Apply every segment to its `rows_per_segment` rows of `rows` [R, D], which lie in order of their numbers."""
        n_segments = len(self.segments)
        numbers = torch.arange(len(rows_per_segment), device=rows.device)
        places = (numbers % n_segments).repeat_interleave(rows_per_segment, output_size=rows.shape[0])
        order = places.argsort(stable=True)
        counts_SE = rows_per_segment.unflatten(0, (-1, n_segments)).T  # noqa: N806
        parts = rows[order].split(counts_SE.sum(dim=1).tolist())
        # A grouped matmul of no rows at all has no backward pass.
        joined = torch.cat(
            [
                segment(part, counts) if len(part) else part
                for segment, part, counts in zip(self.segments, parts, counts_SE, strict=True)
            ]
        )
        return torch.empty_like(joined).index_copy(0, order, joined)


class MixtureOfExperts(nn.Module):
    """Routed experts chosen per token, plus shared experts that see every token (arXiv 2412.19437, section 2.1.2).

    No token is dropped: there is no capacity. `dispatcher` decides where the routed rows are computed.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate = HierarchicalRouter(config) if config.routes_hierarchically else Router(config)
        sizes = config.segment_sizes
        self.experts: GroupedExperts | SegmentedExperts = (
            GroupedExperts(config.n_routed_segments, config.hidden_size, sizes[0])
            if len(set(sizes)) == 1
            else SegmentedExperts(config.n_routed_experts, config.hidden_size, sizes)
        )
        self.dispatcher = LocalDispatcher(config.n_routed_segments)
        self.shared_experts = (
            FeedForward(config.hidden_size, config.n_shared_experts * config.moe_intermediate_size)
            if config.n_shared_experts
            else None
        )

    def forward(self, hidden: Tensor) -> tuple[Tensor, Routing]:
        """Map `hidden` [B, T, D] to [B, T, D], and tell how it was routed."""
        tokens = hidden.flatten(0, -2)
        routing = self.gate(tokens)
        rows, rows_per_expert, return_path = self.dispatcher.dispatch(tokens, routing.indices)
        output = self.dispatcher.combine(self.experts(rows, rows_per_expert), routing.gates, return_path)
        output = output.view_as(hidden)
        if self.shared_experts is not None:
            output = output + self.shared_experts(hidden)
        return output, routing
