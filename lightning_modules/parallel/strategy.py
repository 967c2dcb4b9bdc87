"""Expert parallelism with FSDP2 for Lightning."""

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import lightning as L  # noqa: N812
import torch
import torch.distributed as dist
from lightning.fabric.utilities.distributed import _destroy_dist_connection
from lightning.fabric.utilities.optimizer import _optimizers_to_device
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch.distributed.distributed_c10d import _get_default_store
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.optim import Optimizer

from lightning_modules.model.decoder import Decoder
from lightning_modules.parallel.background_saves import BackgroundSaves
from lightning_modules.parallel.checkpoint import CheckpointWriter, model_state, optimizer_state
from lightning_modules.parallel.checkpoint_loading import load_checkpoint
from lightning_modules.parallel.collectives import begin_recording
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.parallel.dispatch_choice import choose_dispatcher
from lightning_modules.parallel.heartbeat import Heartbeat
from lightning_modules.parallel.mesh import build_mesh
from lightning_modules.parallel.sharding import GATHERED_AT_ONCE, parallelise
from lightning_modules.parallel.whole_experts import gather_experts_whole
from lightning_modules.precision.plugins import has_working_weights, working_policy
from lightning_modules.precision.working_weights import WorkingWeights

# Seconds that the backend waits for a rank beyond those after which the heartbeat gives it up.
BACKEND_MARGIN = 300.0


class HasDecoder(Protocol):
    """What the strategy needs of a LightningModule."""

    decoder: Decoder
    working_weights: WorkingWeights | None

    def initialize_weights(self) -> None:
        """Fill the decoder, whose parameters are sharded and empty."""

    def release_recording(self) -> None:
        """Let go of what has recorded exchanges between ranks."""


class ExpertParallelStrategy(ModelParallelStrategy):
    """Spreads a LightningModule's `decoder` over all ranks: experts over `ep`, everything over data-parallel ranks.

    Every rank reads batches of its own, or shares them over `cp`. Its loss is its share of the global mean: gradients
    are plain sums.

    A decoder on the meta device is given memory once it is sharded, so that no rank ever holds all of it. The precision
    plugin converts modules before that; its `fsdp_policy`, if it has one, says in which type parameters are gathered,
    and its `quantise_rows` how DeepEP rounds tokens to FP8 on their way to the experts.

    Args:
        config: the mesh, and how tokens travel.

    Attributes:
        gathered_at_once: as `parallelise` has it.
    """

    def __init__(self, config: ParallelConfig) -> None:
        # The heartbeat ends a training whose ranks hang, and says why, before the backend does.
        patience = timedelta(seconds=config.rank_lost_seconds + BACKEND_MARGIN)
        super().__init__(save_distributed_checkpoint=True, timeout=patience)
        self.config = config
        self.gathered_at_once = GATHERED_AT_ONCE
        self._writer = CheckpointWriter()
        self._heartbeat: Heartbeat | None = None
        self._is_parallel = False

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Every rank is a data-parallel one, also those that share experts; those that share windows are one."""
        return {"num_replicas": self.world_size // self.config.cp, "rank": self.config.reader(self.global_rank)}

    @property
    def decoder(self) -> Decoder:
        """The LightningModule's decoder."""
        return cast(HasDecoder, self.lightning_module).decoder

    @property
    def reduces_every_micro_batch(self) -> bool:
        """Whether each micro-batch's gradients are summed over ranks."""
        return self.config.reduce_every_micro_batch

    def setup_environment(self) -> None:
        """Connect the processes, and arrange them as the mesh.

        Raises:
            ValueError: when the sizes do not multiply to the world's, or its backend cannot serve the device.
        """
        is_first_use = not dist.is_initialized()
        begin_recording()
        # Buffers of a recording would be made known to other ranks, which may not record, or not yet.
        os.environ.setdefault("NCCL_GRAPH_REGISTER", "0")
        self._setup_distributed()
        if is_first_use:
            # Lightning itself does so with NCCL alone. With Gloo a process that ends with its group alive can abort.
            atexit.register(_destroy_dist_connection)
        if self._heartbeat is None and self.world_size > 1:
            self._heartbeat = self._begin_heartbeat()
        if self._device_mesh is None:
            self._device_mesh = build_mesh(self.config, self.root_device.type, self.world_size)
        assert self.lightning_module is not None
        self.lightning_module._device_mesh = self._device_mesh

    def _begin_heartbeat(self) -> Heartbeat:
        heartbeat = Heartbeat(
            _get_default_store(),
            self.global_rank,
            self.world_size,
            self.config.rank_late_seconds,
            self.config.rank_lost_seconds,
        )
        heartbeat.tell()
        dist.barrier()
        heartbeat.start()
        # Before the connection is taken down, which atexit does in reverse order.
        atexit.register(heartbeat.stop)
        return heartbeat

    def setup(self, trainer: L.Trainer) -> None:
        """Convert precision, shard, materialise, draw weights, build optimizers: in this order.

        Lightning's own strategy converts precision after sharding, when parameters have already been taken. Called
        again for validate, test or predict, it leaves a decoder that is sharded as it is.
        """
        assert self.accelerator is not None
        assert self.model is not None
        self.accelerator.setup(trainer)
        decoder, is_rounded = self.decoder, has_working_weights(self.precision_plugin, self.root_device)
        if not self._is_parallel:
            if is_rounded:
                # Masters never run: they are sharded alike, and neither converted nor cast.
                self._parallelise(decoder, MixedPrecisionPolicy())
            else:
                self.model = self.precision_plugin.convert_module(self.model)
                self._parallelise(decoder, getattr(self.precision_plugin, "fsdp_policy", MixedPrecisionPolicy()))
            self._is_parallel = True
        if any(parameter.is_meta for parameter in decoder.parameters()):
            decoder.to_empty(device=self.root_device)
            decoder.tie_weights()
            cast(HasDecoder, self.lightning_module).initialize_weights()
        self.model_to_device()
        self.barrier()
        if trainer.state.fn == TrainerFn.FITTING:
            if is_rounded:
                cast(HasDecoder, self.lightning_module).working_weights = self._build_working_weights()
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        if trainer.state.fn == TrainerFn.FITTING:
            _optimizers_to_device(self.optimizers, self.root_device)

    def batch_to_device(self, batch: Any, device: torch.device | None = None, dataloader_idx: int = 0) -> Any:
        """Move a batch; a rank that has come so far is told apart from one that hangs before."""
        if self._heartbeat is not None:
            self._heartbeat.advance(cast(L.LightningModule, self.lightning_module).global_step)
        return super().batch_to_device(batch, device, dataloader_idx)

    def host_of(self, rank: int) -> str:
        """The machine of a rank that this one looks after, as the first does after all."""
        assert self._heartbeat is not None
        return self._heartbeat.host_of(rank)

    def reduce(self, tensor: Any, group: Any | None = None, reduce_op: Any = "mean") -> Any:
        """A tensor's sum or mean over all ranks. Lightning's own has every GPU wait for all others first."""
        if not isinstance(tensor, torch.Tensor) or self.world_size == 1:
            return tensor
        reduced = tensor.clone()
        dist.all_reduce(reduced, group=group)
        return reduced / self.world_size if reduce_op in ("mean", "avg") else reduced

    def _build_working_weights(self) -> WorkingWeights:
        working = WorkingWeights(self.decoder, self._prepare)
        gather_experts_whole(working.decoder, self.config.reshard_after_forward, not self._sums_again)
        return working

    def _prepare(self, working: Decoder) -> None:
        """Convert and shard a decoder of working weights."""
        self.precision_plugin.convert_module(working)
        self._parallelise(working, working_policy(self._sums_again))

    @property
    def _sums_again(self) -> bool:
        """Whether gradients that ranks have summed are summed over micro-batches or replicas as well."""
        assert self.lightning_module is not None
        accumulates = self.lightning_module.trainer.accumulate_grad_batches > 1
        return (accumulates and not self.reduces_every_micro_batch) or self.config.dp_replicate > 1

    def _parallelise(self, decoder: Decoder, policy: MixedPrecisionPolicy) -> None:
        choose = partial(
            choose_dispatcher,
            n_chosen=decoder.config.num_segments_per_tok,
            kind=self.config.dispatch,
            dtype=next(decoder.parameters()).dtype if policy.param_dtype is None else policy.param_dtype,
            quantise=getattr(self.precision_plugin, "quantise_rows", None),
        )
        reshards = self.config.reshard_after_forward
        parallelise(decoder, self.device_mesh, policy, choose, self.gathered_at_once, reshards)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Accumulate a micro-batch's gradients where they are; the last one's backward pass reduces them all.

        With `reduce_every_micro_batch` each one's are reduced at once, and what is accumulated is sharded.
        """
        working = cast(HasDecoder, self.lightning_module).working_weights
        decoder = self.decoder if working is None else working.decoder
        if self.reduces_every_micro_batch or not isinstance(decoder, FSDPModule):
            yield
            return
        decoder.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            decoder.set_requires_gradient_sync(True)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """This rank's shards of parameters and buffers, by name."""
        assert self.model is not None
        return model_state(self.model)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """This rank's shards of the optimizer's state, by the parameters' names."""
        assert self.model is not None
        return optimizer_state(self.model, getattr(optimizer, "_optimizer", optimizer))

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: _PATH, storage_options: Any | None = None) -> None:
        """Begin to write a sharded folder; training may go on meanwhile (see `CheckpointWriter`)."""
        if storage_options is not None:
            raise TypeError("ExpertParallelStrategy writes checkpoints to folders; it takes no storage_options.")
        self._writer.save(checkpoint, Path(self.broadcast(filepath)))

    @property
    def saves(self) -> BackgroundSaves:
        """The saves that are under way."""
        return self._writer.saves

    def load_checkpoint(self, checkpoint_path: _PATH, weights_only: bool | None = None) -> dict[str, Any]:
        """Load parameters and optimizers in place from any layout, without unpickling; returns all the rest."""
        assert self.lightning_module is not None
        return load_checkpoint(Path(self.broadcast(checkpoint_path)), self.lightning_module, self.optimizers)

    def teardown(self) -> None:
        """Finish what is being written, and let no rank leave before the others; after an error, just leave."""
        if self.lightning_module is not None:
            # NCCL would wait for a recording that holds on to it.
            cast(HasDecoder, self.lightning_module).release_recording()
        if sys.exc_info()[0] is None:
            self.saves.wait()
            self.barrier()
        if self._heartbeat is not None:
            self._heartbeat.stop()
        super().teardown()
