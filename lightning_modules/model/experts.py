"""Feed-forward networks: dense, and a mixture of routed and shared experts.

Suffixes: R routed rows, D hidden, I intermediate, E experts, K chosen experts a token, S segments an expert.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.model import by_hand
from lightning_modules.model.by_hand.experts import weighted_experts
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.dispatch import Dispatcher, LocalDispatcher
from lightning_modules.model.recompute import computed_once
from lightning_modules.model.router import HierarchicalRouter, Router, Routing
from lightning_modules.model.sharded import local


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


def grouped_linear(rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """Multiply each expert's rows by its own matrix.

    Args:
        rows: [R, in], in order of experts; at least one.
        weight: [E, out, in].
        offsets: [E] where each expert's rows end, int32.

    Returns:
        [R, out].
    """
    # Autocast does not know grouped_mm: its operands are brought to the autocast type here.
    if torch.is_autocast_enabled(rows.device.type):
        dtype = torch.get_autocast_dtype(rows.device.type)
        rows, weight = rows.to(dtype), weight.to(dtype)
    if rows.is_cuda and rows.dtype == torch.float32:
        from lightning_modules.model.kernels.grouped_product import grouped_product

        return grouped_product(rows, weight, offsets)
    if torch.compiler.is_compiling() and rows.dtype != torch.bfloat16:
        # The compiler itself takes seconds to import.
        from lightning_modules.model.uncompiled import grouped_mm

        return grouped_mm(rows, weight, offsets)
    return F.grouped_mm(rows, weight.mT, offs=offsets)


def weighted_swiglu(gate_up: Tensor, gates: Tensor) -> Tensor:
    """silu(gate) · up, each row as often as its gate says: [R, 2I] and [R] give [R, I]."""
    if gate_up.is_cuda:
        from lightning_modules.model.kernels import swiglu

        return swiglu.weighted_swiglu(gate_up, gates)
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up * gates.unsqueeze(-1).to(up.dtype)


class GroupedExperts(nn.Module):
    """The routed experts' weights, stacked, and applied to rows sorted by expert with one grouped matmul each.

    `gate_up_proj` [E, 2I, D] holds every expert's gate above its up projection; `down_proj` is [E, D, I]. Where experts
    are spread over ranks, the stacks are DTensors, and each rank applies the experts it holds.

    Attributes:
        grouped_mm: what multiplies, by the signature of `grouped_linear`; a low-precision recipe puts its own here. It
            is never called without rows, though single experts may have none.
    """

    def __init__(self, n_experts: int, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(n_experts, 2 * intermediate_size, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(n_experts, hidden_size, intermediate_size))
        self.grouped_mm: Callable[[Tensor, Tensor, Tensor], Tensor] = grouped_linear

    def forward(self, rows: Tensor, gates: Tensor, rows_per_expert: Tensor) -> Tensor:
        """Apply expert e to its `rows_per_expert[e]` rows of `rows` [R, D], which lie in order of experts.

        Each output counts `gates` [R] times: weighed before the down projection, which is linear, it costs a pass over
        I numbers a row that is made anyway, where D are to be moved behind it.
        """
        n_rows = rows.shape[0]
        if n_rows == 0:
            # A grouped matmul of no rows has no backward pass. A row of zeros gives the weights a gradient of zero,
            # without which the ranks that share them would wait for this one forever.
            rows, gates = F.pad(rows, (0, 0, 0, 1)), F.pad(gates, (0, 1))
            rows_per_expert = F.pad(rows_per_expert[1:], (1, 0), value=1)
        offsets = rows_per_expert.cumsum(0).to(torch.int32)
        gate_up, down = local(self.gate_up_proj), local(self.down_proj)
        if self.grouped_mm is grouped_linear and by_hand.applies_to(rows):
            return weighted_experts(rows, gates, gate_up, down, offsets)[:n_rows]
        weighted = weighted_swiglu(self.grouped_mm(rows, gate_up, offsets), gates)
        return self.grouped_mm(weighted, down, offsets)[:n_rows]


class SegmentedExperts(nn.Module):
    """Experts split into segments of different widths: one stack of all experts' segments for each place in the split.

    Segment s of expert e is number e · S + s.
    """

    def __init__(self, n_experts: int, hidden_size: int, segment_sizes: Sequence[int]) -> None:
        super().__init__()
        self.segments = nn.ModuleList(GroupedExperts(n_experts, hidden_size, size) for size in segment_sizes)

    def forward(self, rows: Tensor, gates: Tensor, rows_per_segment: Tensor) -> Tensor:
        """Apply every segment to its `rows_per_segment` rows of `rows` [R, D], which lie in order of their numbers."""
        n_segments = len(self.segments)
        numbers = torch.arange(len(rows_per_segment), device=rows.device)
        places = (numbers % n_segments).repeat_interleave(rows_per_segment, output_size=rows.shape[0])
        order = places.argsort(stable=True)
        counts_SE = rows_per_segment.unflatten(0, (-1, n_segments)).T  # noqa: N806
        sizes = counts_SE.sum(dim=1).tolist()
        parts = zip(self.segments, rows[order].split(sizes), gates[order].split(sizes), counts_SE, strict=True)
        joined = torch.cat([segment(part, part_gates, counts) for segment, part, part_gates, counts in parts])
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
        self.dispatcher: Dispatcher = LocalDispatcher(config.n_routed_segments)
        self.shared_experts = (
            FeedForward(config.hidden_size, config.n_shared_experts * config.moe_intermediate_size)
            if config.n_shared_experts
            else None
        )

    @property
    def waits_for_host(self) -> bool:
        """Whether the host has to know how many rows go where: for other ranks' experts, or segments of many widths."""
        return isinstance(self.experts, SegmentedExperts) or not isinstance(self.dispatcher, LocalDispatcher)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Routing]:
        """Map `hidden` [B, T, D] to [B, T, D], and tell how it was routed."""
        tokens = hidden.flatten(0, -2)
        routing = self.gate(tokens)
        return computed_once(partial(self._mix, hidden, tokens, routing)), routing

    def _mix(self, hidden: Tensor, tokens: Tensor, routing: Routing) -> Tensor:
        """What all experts make of `hidden` [B, T, D], which are `tokens` [N, D]."""
        plan = self.dispatcher.plan(tokens, routing.gates, routing.indices)
        # The shared experts run while tokens travel.
        shared = None if self.shared_experts is None else self.shared_experts(hidden)
        output = self.apply_routed(plan).view_as(hidden)
        return output if shared is None else output + shared

    def apply_routed(self, plan: Any) -> Tensor:
        """What the routed experts make of the tokens of a dispatcher's plan [N, D]."""
        rows, gates, rows_per_expert, way_back = self.dispatcher.dispatch(plan)
        return self.dispatcher.combine(self.experts(rows, gates, rows_per_expert), way_back)
