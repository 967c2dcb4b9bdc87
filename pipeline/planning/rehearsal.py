"""One training step without memory: the real code on fake tensors, with every byte it would allocate counted.

Decoder, FSDP, token dispatch, recompute and the FP8 recipes run as in training. What cannot run without a GPU is
replaced by what allocates the same: the attention kernel, and FP8 kernels by their emulation, whose own intermediate
tensors do not count. The router's choice is balanced: every expert gets as many rows as any other. Where steps are
recorded there is as much room for rows as at first in training.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial, partialmethod, wraps
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup
from torch.distributed.tensor import DTensor

from lightning_modules.batch import Batch
from lightning_modules.configuration import OptimizerConfig
from lightning_modules.language_model import LanguageModel
from lightning_modules.model import attention_over_ranks, host_room, key_spans
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.document_borders import FEWEST, DocumentBorders
from lightning_modules.model.host_room import HostRoom
from lightning_modules.model.within_borders import fits_borders
from lightning_modules.parallel import all_gather
from lightning_modules.parallel.row_bound import bound_rows
from lightning_modules.parallel.whole_experts import N_ROOMS, GradientSums, gather_experts_whole, in_backward_pass
from lightning_modules.precision import scaled_products
from lightning_modules.precision.kernels import blockwise as kernels
from lightning_modules.precision.quantised import keep_copies
from lightning_modules.schedule import ScheduleConfig
from pipeline.planning.fake_ranks import local_shard, sharded_decoder, standing_for_rank_0, sums_again
from pipeline.planning.gpu_kernels import SHAPE_ONLY, GpuKernels
from pipeline.planning.gpu_ways import gpu_ways
from pipeline.planning.live_memory import LiveMemory, Segment
from pipeline.planning.settings import GpuConfig, Layout, PlannedTraining

# Blocks of a kind that a rehearsal needs, so that one of them has its own kind for a neighbour on either side.
ENOUGH_BLOCKS = 2
# What the decoder behind the objective is shrunk to.
SMALLEST: dict[str, Any] = {
    "vocab_size": 1,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "first_k_dense_replace": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "moe_intermediate_size": 8,
    "num_expert_segments": 1,
    "expert_segment_sizes": None,
    "num_segments_per_expert": None,
}


@dataclass(frozen=True)
class Rehearsal:
    """What one step of the rehearsed decoder allocated beside parameters and the optimizer.

    Attributes:
        layout: the ranks it was rehearsed for.
        segments: forward through each block, head and losses, and backward through each block.
        n_dense: leading dense blocks that were rehearsed.
        n_mixtures: blocks with experts that were, those of multi-token prediction not included.
    """

    layout: Layout
    segments: tuple[Segment, ...]
    n_dense: int
    n_mixtures: int

    @property
    def n_layers(self) -> int:
        """Blocks that were rehearsed, without those of multi-token prediction."""
        return self.n_dense + self.n_mixtures

    def segment(self, name: str) -> Segment:
        """The segment of that name."""
        return next(segment for segment in self.segments if segment.name == name)

    def kept(self, place: int, phase: str) -> int:
        """Bytes of activations that a block like `place` and the one after it leaves for its backward pass.

        In the phase `backward` they are fewer than in `forward`: where tokens went is known until the losses are.
        """
        following = self.segment(f"{phase} layers.{place + 1}")
        return following.start["activations"] - self.segment(f"{phase} layers.{place}").start["activations"]


def rehearse(training: PlannedTraining, layout: Layout, gpu: GpuConfig) -> Rehearsal:
    """Run one step of a decoder with fewer blocks.

    Args:
        training: what is trained.
        layout: the ranks, which stand behind a fake process group.
        gpu: what the ranks run on.
    """
    # Of inputs that wait on the host, the last block's has not left: two others tell what a block keeps. Experts that
    # are gathered whole take turns in more places than that.
    waits_on_host = training.recompute == "blocks_offloaded"
    enough = max(ENOUGH_BLOCKS + waits_on_host, N_ROOMS if training.has_working_weights and layout.ep == 1 else 0)
    n_dense = min(training.decoder.first_k_dense_replace, enough)
    n_mixtures = min(training.decoder.num_hidden_layers - training.decoder.first_k_dense_replace, enough)
    shallow = replace(training.decoder, num_hidden_layers=n_dense + n_mixtures, first_k_dense_replace=n_dense)
    live = LiveMemory(SHAPE_ONLY)
    with standing_for_rank_0(layout.world_size), ExitStack() as stack:
        decoder = sharded_decoder(replace(training, decoder=shallow), layout)
        decoder.recompute = training.recompute
        for substitution in _substitutions(training, layout, gpu, live):
            stack.enter_context(substitution)
        model = _language_model(training)
        stack.enter_context(FakeTensorMode())
        decoder._apply(_materialised)
        if training.has_working_weights:
            keep_copies(decoder)
            with live, live.allocating("gathered"):
                gather_experts_whole(decoder, reshards=True, sums_once=not sums_again(training, layout))
        bound = bound_rows(decoder, torch.device("cpu")) if training.is_recorded(layout) else None
        if bound is not None:
            bound.begin()
        _observe(decoder, live, gpu.attention)
        segments = _step(model, decoder, training, gpu.attention, live)
    return Rehearsal(layout, segments, n_dense, n_mixtures)


def _step(
    model: LanguageModel, decoder: Decoder, training: PlannedTraining, attention: str, live: LiveMemory
) -> tuple[Segment, ...]:
    """Forward, losses, backward, as the LightningModule and the trainer call them."""
    depth = training.decoder.num_nextn_predict_layers
    size = (training.batch_size, training.sequence_length + 1 + depth)
    batch = Batch.whole_step(torch.empty(size, dtype=torch.long), torch.empty(size, dtype=torch.long), depth)
    with live:
        live.begin("embedding")
        with GpuKernels(attention):
            loss = _loss(model, decoder, batch, training, attention)
        live.begin("backward head")
        with live.allocating("temporary"):
            torch.autograd.backward(loss)
        live.begin("end")
    return tuple(live.segments[:-1])


def _loss(model: LanguageModel, decoder: Decoder, batch: Batch, training: PlannedTraining, attention: str) -> Tensor:
    """What `LanguageModel.training_step` does up to its result."""
    documents = borders = None
    has_kernel = training.has_working_weights and fits_borders(training.decoder) and attention != "cpu"
    if not training.attend_across_documents:
        documents = batch.document_ids[:, : batch.n_positions]
    if has_kernel and (documents is not None or decoder.shared_rows is not None):
        borders = DocumentBorders(torch.empty(FEWEST + 1, dtype=torch.int32), training.sequence_length)
    output = decoder.losses(batch.tokens[:, :-1], batch.targets(), documents, borders=borders)
    loss, _ = model.objective_loss(output, batch, model.objective.mtp_shares(len(output.sums) - 1, progress=0.0))
    return loss


def _language_model(training: PlannedTraining) -> LanguageModel:
    """A LightningModule with the objective, and the smallest decoder that fits it: the objective alone is used."""
    with torch.device("meta"):
        return LanguageModel(
            replace(training.decoder, **SMALLEST),
            training.objective,
            OptimizerConfig(lr=1.0, betas=(0.9, 0.95), weight_decay=0.0, eps=1e-8),
            ScheduleConfig(warmup_steps=0, constant_fraction=1.0, final_ratio=1.0),
            max_steps=1,
            seed=0,
        )


def _observe(decoder: Decoder, live: LiveMemory, attention: str) -> None:
    """Have segments begin where blocks do, forwards and backwards."""
    blocks: list[tuple[str, nn.Module]] = [
        *((f"layers.{index}", block) for index, block in enumerate(decoder.layers)),
        *((f"mtp.{index}", block) for index, block in enumerate(decoder.mtp)),
    ]
    for name, block in blocks:
        block.forward = _with_kernels(block.forward, live, attention)
        # Before and after FSDP's own hooks, so that what it gathers for a block falls into the block's segment.
        block.register_forward_pre_hook(partial(_begin_forward, live, name), prepend=True)
        block.register_forward_hook(partial(_watch_gradient, live, name), prepend=True)
        block.register_forward_hook(partial(_end_forward, live, name))
    for parameter in decoder.parameters():
        # FSDP calls these once a shard of the gradient is reduced.
        parameter.register_post_accumulate_grad_hook(lambda p: live.move(local_shard(p.grad), "gradients"))


def _begin_forward(live: LiveMemory, name: str, *_: Any) -> None:
    if not in_backward_pass():
        live.begin(f"forward {name}")


def _end_forward(live: LiveMemory, name: str, *_: Any) -> None:
    if not in_backward_pass():
        live.begin(f"after {name}")
        # After the last block follow only the head and the losses; blocks say for themselves what they allocate.
        live.category = "logits"


def _watch_gradient(live: LiveMemory, name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
    if not in_backward_pass():
        output[0].register_hook(lambda _: live.begin(f"backward {name}"))


def _with_kernels(forward: Callable[..., Any], live: LiveMemory, attention: str) -> Callable[..., Any]:
    """`forward` of a block, with attention on the named kernel."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with GpuKernels(attention), live.allocating("temporary" if in_backward_pass() else "activations"):
            return forward(*args, **kwargs)

    return call


def _repeating_on_kernel(
    repeating: Callable[..., Tensor], kernel: str, attend: Callable[..., Tensor], *inputs: Tensor, **options: bool
) -> Tensor:
    """`repeating` of attention, on the named kernel forwards and once more backwards."""

    def call(*tensors: Tensor) -> Tensor:
        with GpuKernels(kernel):
            return attend(*tensors)

    return repeating(call, *inputs, **options)


def _substitutions(training: PlannedTraining, layout: Layout, gpu: GpuConfig, live: LiveMemory) -> Iterator[Any]:
    """Patches for what needs a GPU, other ranks or real numbers."""
    if gpu.attention != "cpu":
        yield from gpu_ways()
        yield from _host_memory(live)
    # What it repeats in the backward pass is called from there, and not by a block.
    for module, name in ((attention_over_ranks, "attention_kept"), (key_spans, "checkpoint")):
        on_kernel = partial(_repeating_on_kernel, getattr(module, name), gpu.attention)
        yield mock.patch.object(module, name, on_kernel)
    rows = training.n_tokens // layout.cp * training.decoder.num_segments_per_tok
    yield mock.patch.object(FakeTensor, "tolist", lambda sizes: _balanced(rows, sizes))
    # Of all ranks' choices an equal share is as many as one rank's tokens make.
    yield mock.patch.object(all_gather, "arrived_on_host", return_value=rows)
    for name in ("unshard", "wait_for_unshard"):
        yield mock.patch.object(FSDPParamGroup, name, _allocating(live, "gathered", getattr(FSDPParamGroup, name)))
    yield mock.patch.object(
        FSDPParamGroup, "post_backward", _allocating(live, "reduction", FSDPParamGroup.post_backward)
    )
    yield mock.patch.object(GradientSums, "send", _allocating(live, "reduction", GradientSums.send))
    yield mock.patch.object(GradientSums, "_add", partialmethod(_add_counted, live, GradientSums._add))
    yield mock.patch.object(kernels, "available", return_value=gpu.has_fp8)
    yield mock.patch.object(scaled_products, "runs_on_scaled_products", return_value=gpu.has_fp8)


def _add_counted(
    sums: GradientSums, live: LiveMemory, add: Callable[..., None], weight: DTensor, total: Tensor
) -> None:
    """`add`, after which what has been summed is a gradient."""
    add(sums, weight, total)
    assert weight.grad is not None
    live.move(local_shard(weight.grad), "gradients")


def _host_memory(live: LiveMemory) -> Iterator[Any]:
    """Patches by which tensors leave for a host whose memory does not count; mocks would keep them alive."""
    yield mock.patch.object(host_room, "moves", _always)
    for name in ("begin_copy", "end_copy"):
        yield mock.patch.object(host_room, name, _at_once)
    yield mock.patch.object(HostRoom, "take", _allocating(live, None, HostRoom.take))


def _always(_: Tensor) -> bool:
    return True


def _at_once(*_: Any) -> None:
    """Takes no time, and copies nothing."""


def _allocating(live: LiveMemory, category: str | None, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with live.allocating(category):
            return function(*args, **kwargs)

    return call


def _balanced(n_rows: int, sizes: Tensor) -> list[Any]:
    """In place of numbers of rows that only a router could tell, of which each of the last dimension's sums to all."""
    count, rest = divmod(n_rows, sizes.shape[-1])
    row = [count + (place < rest) for place in range(sizes.shape[-1])]
    return [list(row) for _ in range(sizes.shape[0])] if sizes.ndim == 2 else row


def _materialised(tensor: Tensor) -> Tensor:
    """A tensor of the meta device as one that code takes for real, still without memory."""
    local = torch.empty(local_shard(tensor).shape, dtype=tensor.dtype)
    if not isinstance(tensor, DTensor):
        return local
    mesh, placements = tensor.device_mesh, tensor.placements
    return DTensor.from_local(local, mesh, placements, run_check=False, shape=tensor.shape, stride=tensor.stride())
