"""One micro-batch's forward and backward pass as one CUDA graph.

A step of a decoder launches thousands of kernels. Where each takes a few microseconds, a GPU waits for its host;
recorded once, all of them start by one launch, with the same numbers in the same places.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

# How often inputs of one shape are computed kernel by kernel before they are recorded: compilers and libraries choose
# then what to launch.
N_WARM_UPS = 2


class Bound(Protocol):
    """A limit to what a step computes, which may turn out to have been too low: `parallel.row_bound` has one."""

    def begin(self) -> None:
        """Hold from now on."""

    def watch(self) -> None:
        """Note what comes up to the limit. Recorded along, like `tell`."""

    def tell(self) -> None:
        """Let `is_exceeded` know."""

    def is_exceeded(self) -> bool:
        """Whether the limit was too low; it is none any more then, and a higher one next time."""
        ...

    def lift(self) -> None:
        """Hold no longer."""


class StepGraph:
    """Records `compute`, and the backward pass of its loss, for inputs of one shape at a time.

    What is recorded must neither wait for the GPU nor depend on anything of the host's that changes.

    Args:
        compute: from tensors, in any nesting of tuples, to a loss and whatever else it tells, in tensors.
        parameters: whose gradients the backward pass leaves.
        n_accumulated: how many losses an optimizer step is the mean of.
        bound: holds while something is computed; what exceeds it is computed once more, without.

    Attributes:
        was_replayed: whether what was computed last came from a recording, gradients included.
    """

    def __init__(
        self,
        compute: Callable[..., tuple[Tensor, Any]],
        parameters: Iterable[Tensor],
        n_accumulated: int,
        bound: Bound | None = None,
    ) -> None:
        self._compute = compute
        self._parameters = tuple(parameters)
        self._n_accumulated = n_accumulated
        self._bound = bound
        self.was_replayed = False
        self._shapes: Any = None
        self._n_seen = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Any] = []
        self._outputs: tuple[Tensor, Any] | None = None
        self._gradients: list[tuple[Tensor, Tensor]] = []

    def compute(self, *inputs: Any) -> tuple[Tensor, Any]:
        """What `compute` returns for these inputs: recorded, once it has warmed up on some of their shape."""
        if self._bound is not None:
            self._bound.begin()
        self.was_replayed = self.is_ready(*inputs)
        computed = self.run(*inputs) if self.was_replayed else self._within_bound(*inputs)
        if self._bound is not None and self._bound.is_exceeded():
            # What it has kept for a backward pass would lie beside that of the next.
            del computed
            self.forget()
            self.was_replayed = False
            return self._compute(*inputs)
        return computed

    def lift_bound(self) -> None:
        """Bound nothing that others compute, until the next step."""
        if self._bound is not None:
            self._bound.lift()

    def release(self) -> None:
        """Let go of the recording at once: of its memory, and of connections to other ranks, which wait for that."""
        self.lift_bound()
        self._graph, self._outputs, self._gradients = None, None, []

    def is_ready(self, *inputs: Any) -> bool:
        """Whether to `run` these inputs; else the caller computes them itself, which counts as a warm-up."""
        shapes = [_shape(leaf) for leaf in pytree.tree_leaves(inputs)]
        if shapes != self._shapes:
            self.forget()
            self._shapes = shapes
        self._n_seen += 1
        return self._n_seen > N_WARM_UPS

    def run(self, *inputs: Any) -> tuple[Tensor, Any]:
        """What `compute` returns for these inputs, without a graph of gradients; these wait for `place_gradients`."""
        if self._graph is None:
            self._record(inputs)
            assert self._graph is not None
        for place, leaf in zip(self._inputs, pytree.tree_leaves(inputs), strict=True):
            if isinstance(leaf, Tensor):
                place.copy_(leaf, non_blocking=True)
        self._graph.replay()
        return pytree.tree_map_only(Tensor, torch.clone, self._outputs)

    def place_gradients(self, sum_up: bool) -> None:
        """Give every parameter the gradient of the last run, which the next one overwrites.

        Args:
            sum_up: add it to what earlier runs gave, in memory of its own.
        """
        for parameter, gradient in self._gradients:
            if parameter.grad is not None and sum_up:
                parameter.grad.add_(gradient)
            else:
                parameter.grad = gradient.clone() if sum_up else gradient

    def forget(self) -> None:
        """Record anew, after as many warm-ups: something that was recorded along is no longer so."""
        if self._graph is not None:
            # It may be running.
            torch.cuda.synchronize()
        self._n_seen, self._graph, self._inputs, self._outputs, self._gradients = 0, None, [], None, []

    def _within_bound(self, *inputs: Any) -> tuple[Tensor, Any]:
        if self._bound is None:
            return self._compute(*inputs)
        self._bound.watch()
        computed = self._compute(*inputs)
        self._bound.tell()
        return computed

    def _record(self, inputs: tuple[Any, ...]) -> None:
        leaves, structure = pytree.tree_flatten(inputs)
        self._inputs = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        kept = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        graph = torch.cuda.CUDAGraph()
        # Other threads, which write checkpoints or load data, go on as they like.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            loss, told = self._within_bound(*pytree.tree_unflatten(self._inputs, structure))
            (loss / self._n_accumulated).backward()
            self._outputs = pytree.tree_map_only(Tensor, torch.detach, (loss, told))
        self._gradients = [(p, p.grad) for p in self._parameters if p.grad is not None]
        for parameter, gradient in zip(self._parameters, kept, strict=True):
            parameter.grad = gradient
        self._graph = graph


def _shape(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf
