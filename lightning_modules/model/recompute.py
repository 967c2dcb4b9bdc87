"""Activations computed again instead of kept: those that are cheap (arXiv 2412.19437, section 3.2.3), or all."""

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from lightning_modules.model.attention import LatentAttention
from lightning_modules.model.attention_kept import ATTENTION_OPERATIONS, repeats_all
from lightning_modules.model.host_room import HostRoom

# What stays: matrix products, attention, choices, and what came from other ranks. By name, since not every build of
# torch has all of these, and low precision registers its own (library `melisma_fp8`) only where it is used.
KEPT_OPERATIONS = {
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::_scaled_mm",
    "aten::_scaled_mm_v2",
    "melisma::blockwise_linear",
    "melisma::multiply_rows",
    "melisma_fp8::multiply_rows",
    "melisma::choose_experts",
    "melisma::attend_stretches",
    "aten::topk",
    "aten::index.Tensor",
    "_c10d_functional::all_gather_into_tensor",
    "_c10d_functional::all_to_all_single",
    *ATTENTION_OPERATIONS,
}


Result = TypeVar("Result")


def run_block(kind: str, block: nn.Module, inputs: tuple[Any, ...], host: HostRoom) -> Any:
    """Call `block` with `inputs`, and keep for its backward pass what `kind`, one of RECOMPUTE_KINDS, says.

    Results and gradients are the same in each of them.

    Args:
        kind: what is kept.
        block: a block or prediction module.
        inputs: its arguments.
        host: where `blocks_offloaded` has inputs wait.
    """
    match kind:
        case "activations":
            return recomputed(block, *inputs)
        case "blocks":
            return recomputed_block(block, *inputs)
        case "blocks_offloaded":
            with host.holding():
                return recomputed_block(block, *inputs)
    return block(*inputs)


def recomputed_block(block: nn.Module, *inputs: Any) -> Any:
    """Call `block` with `inputs`, keep these alone, and repeat all of it backwards.

    Tokens travel to their experts once more, by the same choice: the same operations run on the same numbers. What the
    forward pass returned stays, the routing too, so no token is counted twice. Compiled blocks repeat as well.
    """
    return checkpoint(_repeating_all, block, *inputs, use_reentrant=False, preserve_rng_state=False)


def _repeating_all(block: nn.Module, *inputs: Any) -> Any:
    token = repeats_all.set(True)
    try:
        return block(*inputs)
    finally:
        repeats_all.reset(token)


def recomputed(block: nn.Module, *inputs: Any) -> Any:
    """Call `block` with `inputs`, drop its norms, up-projections of attention and SwiGLU, and repeat them backwards.

    Products of all other matrices, attention itself and the routing are kept, so that a backward pass repeats only what
    is cheap; of experts what they keep without recompute (see `computed_once`). Results and gradients stay the same bit
    for bit: the same operations run on the same numbers. Nothing that the forward pass returned changes, so no token is
    counted twice.

    A compiled block is left alone: the compiler itself keeps products and repeats what it can fuse, and operations in
    compiled code cannot be told apart from here.
    """
    if block._compiled_call_impl is not None:
        return block(*inputs)
    selection = _Selection()
    contexts = partial(create_selective_checkpoint_contexts, selection.policy)
    return checkpoint(selection.run, block, *inputs, use_reentrant=False, context_fn=contexts, preserve_rng_state=False)


def computed_once(function: Callable[[], Result]) -> Result:
    """What `function` returns; where cheap activations of a block are recomputed, what it returned the first time.

    For what keeps less for its own backward pass than its operations yield: experts, whose rows travel, are multiplied
    and are summed up, and need only those that are multiplied.
    """
    if torch.compiler.is_compiling():
        return function()
    selection = _running.get()
    return function() if selection is None else selection.first_result(function)


class _Selection:
    """What one call keeps: operations of KEPT_OPERATIONS, but no up-projections, and what is to be computed once."""

    def __init__(self) -> None:
        self._dropping = False
        self._results: list[Any] = []
        self._n_asked = 0

    def run(self, block: nn.Module, *inputs: Any) -> Any:
        """Call `block`, forwards or once more backwards, aware of the up-projections within."""
        self._n_asked = 0
        token, repeats_token = _running.set(self), repeats_all.set(True)
        handles = []
        for module in block.modules():
            if isinstance(module, LatentAttention):
                for name in ("q_b_proj", "kv_b_proj"):
                    if (projection := getattr(module, name, None)) is not None:
                        handles.append(projection.register_forward_pre_hook(self._begin))
                        handles.append(projection.register_forward_hook(self._end, always_call=True))
        try:
            return block(*inputs)
        finally:
            _running.reset(token)
            repeats_all.reset(repeats_token)
            for handle in handles:
                handle.remove()

    def first_result(self, function: Callable[[], Any]) -> Any:
        """The result of `function`, by the order in which results are asked for."""
        if self._n_asked < len(self._results):
            self._n_asked += 1
            return self._results[self._n_asked - 1]
        before, self._dropping = self._dropping, True
        try:
            # Within, saved tensors are saved.
            with saved_tensors_hooks(_as_it_is, _as_it_is):
                result = function()
        finally:
            self._dropping = before
        self._results.append(tree_map_only(Tensor, _leaf, result))
        self._n_asked += 1
        return result

    def policy(self, context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        """What becomes of an operation's output."""
        if operation.name() in KEPT_OPERATIONS and not self._dropping:
            return CheckpointPolicy.MUST_SAVE
        return CheckpointPolicy.PREFER_RECOMPUTE

    def _begin(self, *_: Any) -> None:
        self._dropping = True

    def _end(self, *_: Any) -> None:
        self._dropping = False


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _leaf(tensor: Tensor) -> Tensor:
    """The same numbers, of no graph."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


_running: ContextVar[_Selection | None] = ContextVar("running", default=None)
