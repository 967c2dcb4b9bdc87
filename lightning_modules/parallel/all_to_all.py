"""Token dispatch between ranks through torch.distributed: differentiable, and no token is dropped.

Suffixes: N tokens, K chosen experts a token, E experts of all ranks, L experts of one, P ranks of the group, D hidden;
R rows received.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._functional_collectives import all_to_all_single, wait_tensor
from torch.distributed.device_mesh import DeviceMesh

from lightning_modules.model.dispatch import Dispatched, Dispatcher, LocalDispatcher, Permutation, count_rows


def all_to_all_dispatcher(n_experts: int, ep_mesh: DeviceMesh) -> Dispatcher:
    """A dispatcher over `ep_mesh`: a local one where a single rank holds all experts."""
    if ep_mesh.size() == 1:
        return LocalDispatcher(n_experts)
    return AllToAllDispatcher(n_experts, ep_mesh.get_group())


class Plan(NamedTuple):
    """Rows about to travel.

    Attributes:
        tokens: [N, D].
        gates: [N, K].
        choices: how the tokens' choices are sorted by expert.
        received: [P, L] rows that each rank sends to each expert here.
        sizes: [2, P] on the host: rows sent to, and received from, every rank; filled once `copied` has happened.
        copied: the end of the copy to the host; None where that does not take a device's time.
    """

    tokens: Tensor
    gates: Tensor
    choices: Permutation
    received: Tensor
    sizes: Tensor
    copied: torch.cuda.Event | None


class WayBack(NamedTuple):
    """How rows came here.

    Attributes:
        choices: how they were sorted before they left.
        by_expert: how the received rows are sorted by expert.
        sent: rows sent to each rank.
        received: rows received from each.
    """

    choices: Permutation
    by_expert: Permutation
    sent: list[int]
    received: list[int]


class AllToAllDispatcher:
    """Experts are spread over the ranks of `group`: rank p holds those from p · L on.

    Rows are sorted by expert, sent in one all-to-all, sorted by expert again at their destination, and go the same way
    back. How many rows travel between two ranks is up to the router, so the host has to learn the numbers before it can
    start the exchange: one wait a layer that torch's collectives leave no way around. It is short: `plan` starts the
    exchange of counts and their copy to pinned memory, and the shared experts are queued before `dispatch` waits. The
    GPU is busy with these while the host goes on.

    Args:
        n_experts: E, of all ranks together.
        group: the ranks.
    """

    def __init__(self, n_experts: int, group: dist.ProcessGroup) -> None:
        n_ranks = dist.get_world_size(group)
        if n_experts % n_ranks:
            raise ValueError(f"{n_experts} experts do not divide over {n_ranks} ranks; choose strategy.ep so they do.")
        self.n_experts = n_experts
        self.group = group
        self.n_ranks = n_ranks

    @torch.compiler.disable
    def plan(self, tokens: Tensor, gates: Tensor, indices: Tensor) -> Plan:
        """Tell every rank how many rows it will receive, while the choices are sorted."""
        counts = count_rows(indices, self.n_experts).view(self.n_ranks, -1)
        under_way = all_to_all_single(counts, None, None, self.group)
        choices = Permutation.sorting(indices)
        received = wait_tensor(under_way)
        sizes = torch.stack((counts.sum(dim=1), received.sum(dim=1)))
        if sizes.device.type != "cuda":
            return Plan(tokens, gates, choices, received, sizes, None)
        on_host = torch.empty_like(sizes, device="cpu", pin_memory=True)
        on_host.copy_(sizes, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return Plan(tokens, gates, choices, received, on_host, copied)

    @torch.compiler.disable
    def dispatch(self, plan: Plan) -> Dispatched:
        """Send the tokens to their experts, and receive those of the experts here."""
        rows, row_gates = plan.choices.rows_of(plan.tokens), plan.choices.gates_of(plan.gates).unsqueeze(-1)
        if plan.copied is not None:
            plan.copied.synchronize()
        sent, received = plan.sizes.tolist()
        rows, row_gates = (_exchange(sending, sent, received, self.group) for sending in (rows, row_gates))
        # Rows came by rank, and by expert within a rank: [P, L] runs.
        expert = torch.arange(plan.received.shape[1], device=rows.device).repeat(self.n_ranks)
        expert = expert.repeat_interleave(plan.received.flatten(), output_size=rows.shape[0])
        by_expert = Permutation.sorting(expert.unsqueeze(-1))
        way_back = WayBack(plan.choices, by_expert, sent, received)
        return with_any_number_of_rows(
            Dispatched(by_expert.rows_of(rows), by_expert.gates_of(row_gates), plan.received.sum(dim=0), way_back)
        )

    @torch.compiler.disable
    def combine(self, rows: Tensor, way_back: WayBack) -> Tensor:
        """Send the experts' rows [R, D] back, and sum them into tokens [N, D]."""
        by_rank = way_back.by_expert.sum_of(rows)
        returned = _exchange(by_rank, way_back.received, way_back.sent, self.group)
        return way_back.choices.sum_of(returned)


def with_any_number_of_rows(dispatched: Dispatched) -> Dispatched:
    """The same, told to the compiler: what is compiled for these rows will do for any other number of them."""
    for rows in (dispatched.rows, dispatched.gates):
        torch._dynamo.maybe_mark_dynamic(rows, 0)
    return dispatched


class _Exchange(torch.autograd.Function):
    """Rows to every rank and from every rank; gradients go the opposite way."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return wait_tensor(all_to_all_single(rows.contiguous(), received, sent, group))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        returned = wait_tensor(all_to_all_single(gradient.contiguous(), ctx.sent, ctx.received, ctx.group))
        return returned, None, None, None


def _exchange(rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    """Send the first `sent[0]` of `rows` [Σ sent, D] to rank 0, and so on; returns [Σ received, D] by rank."""
    exchanged = _Exchange.apply(rows, sent, received, group)
    assert isinstance(exchanged, Tensor)
    return exchanged
