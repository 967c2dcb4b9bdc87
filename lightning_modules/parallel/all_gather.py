"""Token dispatch between few ranks: every rank sees all tokens, and computes what its experts make of them.

Suffixes: N tokens of one rank, P ranks, K chosen experts a token, D hidden; R rows of experts here.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._functional_collectives import wait_tensor

from lightning_modules.model.dispatch import Choice, Dispatched, Gathered, TokenDispatcher
from lightning_modules.parallel.exchanges import Ranks, add_up, arrived, gather, give_back, set_out, summed
from lightning_modules.parallel.host_reads import arrived_on_host, copy_to_host
from lightning_modules.parallel.selection import Choices, Selection, in_pages


class Plan(NamedTuple):
    """Tokens under way.

    Attributes:
        tokens: [P·N, D] of all ranks; not to be read before they have arrived.
        gates: [P·N, K] of all ranks.
        indices: [P·N, K] of all ranks.
        counted: where the host has to know how many rows there are, the choices of experts here, and their number [],
            once it has arrived.
    """

    tokens: Tensor
    gates: Tensor
    indices: Tensor
    counted: tuple[Choices, Tensor] | None


class AllGatherDispatcher(TokenDispatcher):
    """Experts are spread over the ranks of `group`: rank p holds those from p · L on.

    Tokens are gathered from all ranks, each rank sums what its experts make of every token, and the sums go back to the
    token's rank, where they are added up in FP32. A token so travels P - 1 times each way, K at most and mostly fewer
    by an exchange of rows: this is the shorter way up to P = K, and none of its exchanges depends on the routing.

    All that does is how many rows the experts here have, which torch has to know to make room for them. The number is
    on its way to the host while tokens travel and the shared experts run; or nobody asks for it, and there is room for
    as many as `spare` says (see `RowBound`).

    All ranks have to dispatch equally many tokens.

    Args:
        n_experts: of all ranks together.
        group: the ranks.

    Attributes:
        spare: room for rows, in eighths of an equal share of all; those that find none are left out. None: as much as
            they need.
        fullest: [] FP32, rows by the room for them where it was least, since it was last set to zero.
    """

    def __init__(self, n_experts: int, group: dist.ProcessGroup) -> None:
        n_ranks = dist.get_world_size(group)
        if n_experts % n_ranks:
            raise ValueError(f"{n_experts} experts do not divide over {n_ranks} ranks; choose strategy.ep so they do.")
        self.n_local_experts = n_experts // n_ranks
        self.first_expert = dist.get_rank(group) * self.n_local_experts
        self.ranks = Ranks(n_ranks, group.group_name)
        self.spare: int | None = None
        self.fullest = torch.zeros(())
        # A block is compiled as one graph, for any number of rows; else it would fall apart where that is read.
        torch._dynamo.config.capture_scalar_outputs = True

    def plan(self, tokens: Tensor, gates: Tensor, indices: Tensor) -> Plan:
        """Gather what was chosen, and begin to gather tokens; the former first, which the host waits for."""
        indices, gates = _GatheredChoice.apply(indices, gates, self.ranks)
        under_way = set_out(tokens, self.ranks)
        if self.spare is not None:
            return Plan(under_way, gates, indices, None)
        choices = Choices.among(indices, self.first_expert, self.n_local_experts)
        return Plan(under_way, gates, indices, (choices, copy_to_host(choices.rows_per_expert.sum())))

    def dispatch(self, plan: Plan) -> Dispatched:
        """Take the rows of the experts here."""
        selection = self._select_within_room(plan) if plan.counted is None else self._select(*plan.counted)
        rows = selection.rows_of(arrived(plan.tokens, self.ranks))
        return Dispatched(rows, selection.gates_of(plan.gates), selection.rows_per_expert, selection)

    def combine(self, rows: Tensor, way_back: Selection) -> Tensor:
        """Sum the experts' rows [R, D] for every token, and this rank's tokens [N, D] over all ranks."""
        return self.add_up(way_back.sum_of(rows))

    def gather(self, plan: Plan) -> Gathered | None:
        """The tokens of all ranks, where there is a bound to how many rows they become here."""
        if plan.counted is not None:
            return None
        experts = plan.indices - self.first_expert
        experts = torch.where((experts >= 0) & (experts < self.n_local_experts), experts, -1)
        room = self._room(plan, (experts >= 0).sum())
        return Gathered(Choice(arrived(plan.tokens, self.ranks), plan.gates, experts), room)

    def add_up(self, sums: Tensor) -> Tensor:
        """Sum this rank's tokens [N, D] over all ranks, each of which has a part of everybody's [P·N, D]."""
        return summed(sums, self.ranks)

    def _select(self, choices: Choices, on_host: Tensor) -> Selection:
        n_rows = int(arrived_on_host(on_host))
        # For the compiler, to which the number is unknown.
        torch._check(n_rows >= 0)
        torch._check(n_rows <= choices.order.shape[0])
        return Selection.of(choices, n_rows)

    def _select_within_room(self, plan: Plan) -> Selection:
        choices = Choices.among(plan.indices, self.first_expert, self.n_local_experts)
        return Selection.within(choices, self._room(plan, choices.rows_per_expert.sum()))

    def _room(self, plan: Plan, n_rows: Tensor) -> int:
        """For how many rows there is room; how much of it so many take is noted."""
        assert self.spare is not None
        room = room_for_rows(plan.indices.numel(), self.ranks.size, self.spare)
        self.fullest.copy_(torch.maximum(self.fullest, n_rows / room))
        return room


def room_for_rows(n_choices: int, n_ranks: int, spare: int) -> int:
    """Rows that a rank makes room for: `spare` eighths of its share of the `n_choices` of all ranks' tokens."""
    return min(in_pages(spare * n_choices // (8 * n_ranks)), n_choices)


class _GatheredChoice(torch.autograd.Function):
    """Experts and their gates [N, K] of all ranks, side by side in one exchange; gradients of gates are added up."""

    @staticmethod
    def forward(ctx: Any, indices: Tensor, gates: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
        ctx.ranks = ranks
        both = torch.cat((indices.to(torch.int32), gates.contiguous().view(torch.int32)), dim=1)
        chosen, weights = wait_tensor(gather(both, ranks)).chunk(2, dim=1)
        chosen, weights = chosen.to(indices.dtype), weights.contiguous().view(gates.dtype)
        ctx.mark_non_differentiable(chosen)
        return chosen, weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        return None, add_up(give_back(gradients[1], ctx.ranks), ctx.ranks), None
