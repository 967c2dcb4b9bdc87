"""Experts' weights gathered to where they are read, and their gradients sent from where they lie.

FSDP gathers a block's parameters into one buffer, from which it copies each to a place of its own, and copies gradients
into another before they travel: a block waits for both. A stack that is split by whole experts needs neither, for the
ranks' parts, one after the other, are the stack. FSDP lets such a parameter gather itself, by extensions that a local
tensor may have (`fsdp_pre_all_gather`, `fsdp_post_all_gather`); all else of a block it gathers as ever. GPUs of one
machine copy parts from each other (`peer_copies.py`).
"""

import weakref
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Variable
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.experts import GroupedExperts
from lightning_modules.parallel.peer_copies import Meeting, PeerParts, can_copy

# One is read, the next is gathered, and one more may still be read: FSDP has a gather wait until the block before the
# one that computes has begun, not until it has ended.
N_ROOMS = 3
# Stacks of a block: so many gradients are under way when the next block's come.
N_UNDER_WAY = 2


def gather_experts_whole(decoder: Decoder, reshards: bool, sums_once: bool) -> None:
    """Let every stack of experts that FSDP splits by whole experts gather itself; before the decoder first runs.

    Args:
        decoder: sharded by `parallelise`, with weights of the types that are gathered.
        reshards: whether blocks are gathered anew for their backward pass, so that stacks can take turns.
        sums_once: whether a backward pass's gradients are summed over ranks at once, in their own type.
    """
    weights = [stack for block in decoder.blocks() if isinstance(block, FSDPModule) for stack in _stacks(block)]
    if not weights:
        return
    device, group = weights[0].device, _group_of(weights[0])
    sums = GradientSums(device) if sums_once else None
    meeting = Meeting(group, device) if can_copy(group, device) else None
    rooms: dict[torch.Size, list[_Room]] = {}
    stacks = []
    for weight in weights:
        of_shape = rooms.setdefault(weight.shape, [])
        if len(of_shape) < N_ROOMS or not reshards:
            of_shape.append(_Room(weight))
        else:
            # To the end of the row: whoever had it longest gives way.
            of_shape.append(of_shape.pop(0))
        parts = None if meeting is None else PeerParts(weight.to_local(), group)
        stacks.append(WholeStack(weight, of_shape[-1], group, parts, sums))
    stacks[0].meets_before = stacks[-1].meets_behind = meeting
    # Tensors refer to them weakly: what lies in a circle with tensors may never be collected.
    decoder.whole_stacks = stacks  # type: ignore[assignment]


def _stacks(block: torch.nn.Module) -> list[DTensor]:
    """A block's stacks that are gathered with it, each rank having as many experts."""
    weights = [
        weight
        for module in block.modules()
        if isinstance(module, GroupedExperts) and not isinstance(module, FSDPModule)
        for weight in module.parameters(recurse=False)
    ]
    return [weight for weight in weights if isinstance(weight, DTensor) and _is_split_by_experts(weight)]


def _is_split_by_experts(weight: DTensor) -> bool:
    """Whether FSDP does so, and equally: what is spread over `ep` is not gathered."""
    mesh = weight.device_mesh
    ways = zip(mesh.shape, weight.placements, strict=True)
    split = [(size, placement.dim) for size, placement in ways if isinstance(placement, Shard)]
    if len(split) != 1 or "ep" in (mesh.mesh_dim_names or ()):
        return False
    n_ranks, dimension = split[0]
    return n_ranks > 1 and dimension == 0 and weight.shape[0] % n_ranks == 0


def _group_of(weight: DTensor) -> dist.ProcessGroup:
    """The ranks that it is split over, in a mesh that may have another dimension for replicas."""
    return weight.device_mesh.get_group(weight.device_mesh.ndim - 1)


class _Room:
    """Memory for a whole stack.

    Attributes:
        whole: as long as all ranks' parts of `weight`.
        holder: the weight whose numbers it has.
    """

    def __init__(self, weight: DTensor) -> None:
        self.whole = weight.to_local().new_empty(weight.shape)
        self.holder: DTensor | None = None


class WholeStack:
    """A stack of experts that FSDP asks to gather itself.

    Args:
        weight: the stack, of which each rank has as many experts.
        room: where it is gathered.
        group: the ranks.
        parts: its parts, which are copied; None: an exchange gathers them.
        sums: sum its gradients over ranks; None: FSDP does.

    Attributes:
        meets_before: where ranks meet before they copy parts in a forward pass, for steps have changed these.
        meets_behind: where they meet once they have. After a backward pass they need not: weights change when gradients
            of all ranks have come.
    """

    def __init__(
        self,
        weight: DTensor,
        room: _Room,
        group: dist.ProcessGroup,
        parts: PeerParts | None,
        sums: "GradientSums | None",
    ) -> None:
        self.weight = weight
        self.meets_before: Meeting | None = None
        self.meets_behind: Meeting | None = None
        self._room = room
        self._group = group
        self._parts = parts
        self._sums = sums
        self._is_summed = False
        if parts is not None:
            weight._local_tensor = parts.own
        part, weak = weight._local_tensor, weakref.proxy(self)
        part.fsdp_pre_all_gather = partial(WholeStack.begin, weak)  # type: ignore[attr-defined]
        part.fsdp_post_all_gather = partial(WholeStack.end, weak)  # type: ignore[attr-defined]
        self._sum_gradient = partial(WholeStack._sum, weak)

    def begin(self, mesh: DeviceMesh) -> tuple[tuple[()], None]:
        """Gather the stack beside the stream that computes; FSDP is to gather nothing of it."""
        is_backward = in_backward_pass()
        # Since the forward pass no weight has changed.
        if not (self._room.holder is self.weight and is_backward):
            if self.meets_before is not None and not is_backward:
                self.meets_before.wait()
            # What the backward pass needs of it is there again by then.
            with torch.autograd._unsafe_preserve_version_counter(self._room.whole):
                self._gather(self._room.whole)
            self._room.holder = self.weight
            if self.meets_behind is not None and not is_backward:
                self.meets_behind.wait()
        return (), None

    def _gather(self, whole: Tensor) -> None:
        if self._parts is None:
            dist.all_gather_into_tensor(whole, self.weight._local_tensor, group=self._group)
        else:
            self._parts.copy_to(whole)

    def end(
        self, gathered: Sequence[Tensor], metadata: None, dtype: torch.dtype, *, out: Tensor | None = None
    ) -> tuple[Tensor, tuple[()]] | None:
        """Where the stack is, for FSDP to make it a parameter, and no memory that is FSDP's; later on `out` is that."""
        if out is None:
            return self._room.whole, ()
        if self._sums is not None and not self._is_summed:
            out.register_post_accumulate_grad_hook(self._sum_gradient)
            self._is_summed = True
        return None

    def _sum(self, parameter: Tensor) -> None:
        """Have the gradient of the gathered stack summed over ranks, in FSDP's place."""
        assert self._sums is not None
        gradient, parameter.grad = cast(Tensor, parameter.grad), None
        self._sums.send(gradient, self.weight, self._group)


class GradientSums:
    """Exchanges gradients, and sums them up, beside the backward pass.

    What travels, and how it is rounded, is as `SumInOnePlace` has it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = torch.get_device_module(device)
        self._stream = self._device.Stream(priority=-1) if device.type == "cuda" else self._device.current_stream()
        self._under_way: deque[tuple[Tensor, Any]] = deque()

    def send(self, gradient: Tensor, weight: DTensor, group: dist.ProcessGroup) -> None:
        """Begin to give `weight` the sum of all ranks' gradients of the whole, [E, ...]."""
        here = self._device.current_stream()
        if not self._under_way:
            Variable._execution_engine.queue_callback(self._finish)
        if len(self._under_way) == N_UNDER_WAY:
            # Memory that is sent from cannot be let go of before.
            here.wait_event(self._under_way.popleft()[1])
        self._stream.wait_stream(here)
        with self._device.stream(self._stream):
            parts = torch.empty_like(gradient)
            dist.all_to_all_single(parts, gradient, group=group)
            total = torch.sum(parts.unflatten(0, (group.size(), -1)), dim=0)
            self._add(weight, total)
            self._under_way.append((gradient, self._stream.record_event()))

    def _add(self, weight: DTensor, total: Tensor) -> None:
        if weight.grad is not None:
            cast(DTensor, weight.grad)._local_tensor.add_(total)
            return
        mesh, placements = weight.device_mesh, weight.placements
        weight.grad = DTensor.from_local(total, mesh, placements, shape=weight.shape, stride=weight.stride())

    def _finish(self) -> None:
        """Have what follows the backward pass wait for all of them."""
        for _, event in self._under_way:
            self._device.current_stream().wait_event(event)
        self._under_way.clear()


def in_backward_pass() -> bool:
    """Whether autograd computes gradients in this thread now: a hook tells so who has called it."""
    return torch._C._current_graph_task_id() != -1
