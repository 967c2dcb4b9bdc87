"""The LightningModule: what is minimised, with what, and what is watched."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import lightning as L  # noqa: N812
import torch
from torch import Tensor

from lightning_modules.batch import Batch
from lightning_modules.configuration import OptimizerConfig
from lightning_modules.fused_adamw import FusedAdamW
from lightning_modules.logged_steps import is_logged
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder, DecoderLosses
from lightning_modules.model.document_borders import DocumentBorders
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.model.router import expert_loads, joined, sequence_balance_loss, switch_balance_loss
from lightning_modules.model.within_borders import fits_borders
from lightning_modules.optimizer import build_optimizer
from lightning_modules.parallel.clipping import clip_gradients
from lightning_modules.parallel.configuration import can_record
from lightning_modules.parallel.row_bound import bound_rows
from lightning_modules.precision.plugins import LossScalingPrecision
from lightning_modules.precision.working_weights import WorkingWeights
from lightning_modules.schedule import ScheduleConfig
from lightning_modules.step_graph import StepGraph

# Losses by their metrics' names: each summed, and over how many.
Sums = dict[str, tuple[Tensor, Tensor]]


class LanguageModel(L.LightningModule):
    """A decoder in training.

    Built under `torch.device("meta")` it has no weights until a strategy that shards it has given them room, and calls
    `initialize_weights`; else it has them at once. Both ways they are the same.

    Args:
        decoder: its architecture.
        objective: weights of the losses, and the speed of expert balancing.
        optimizer: its kind and settings.
        schedule: the learning rate's course.
        max_steps: optimizer steps of the whole training, which the schedule is stretched over.
        seed: of the first weights.
        attend_across_documents: let tokens see the documents packed before theirs.
        recompute: what is dropped and computed again for the backward pass, which changes no result.
        compile_blocks: compile every block with torch.compile when it first runs.
        record_steps: launch forward and backward passes as one CUDA graph, on GPUs.

    Attributes:
        load_first_weights: called with the decoder once its first weights are drawn, to put others in their place.
        check_gradients: called with the optimizer and the total norm of gradients, once these are complete and before
            the optimizer steps; it may drop them.
        step_skipped: whether the last optimizer step left the weights as they were; what follows the weights then has
            to stay as well.
        working_weights: rounded weights that compute in place of the decoder's own while training; a strategy builds
            them where the precision asks for them.
        parameter_average: a running mean of the decoder's parameters by name; empty unless `ParameterAverage` keeps
            one. Checkpoints hold it beside the parameters.
        identity: which training this is, in plain values; checkpoints carry it along.
        validation_corpora: names of the corpora whose validation losses are told apart, in the order of their loaders;
            empty where there is one.
    """

    def __init__(
        self,
        decoder: DecoderConfig,
        objective: ObjectiveConfig,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        max_steps: int,
        seed: int,
        attend_across_documents: bool = False,
        recompute: str = "none",
        compile_blocks: bool = False,
        record_steps: bool = False,
    ) -> None:
        super().__init__()
        objective.check_depth(decoder.num_nextn_predict_layers)
        decoder.check_router_learns()
        # Plain values only, so that the checkpoint opens with weights_only=True.
        self.save_hyperparameters(
            {
                "decoder": asdict(decoder),
                "objective": asdict(objective),
                "optimizer": asdict(optimizer),
                "schedule": asdict(schedule),
            }
        )
        self.objective = objective
        self.optimizer_config = optimizer
        self.schedule = schedule
        self.max_steps = max_steps
        self.seed = seed
        self.attend_across_documents = attend_across_documents
        self.load_first_weights: Callable[[Decoder], None] | None = None
        self.check_gradients: Callable[[torch.optim.Optimizer, Tensor], None] | None = None
        self.step_skipped = False
        self.parameter_average: dict[str, Tensor] = {}
        self.working_weights: WorkingWeights | None = None
        self.identity: dict[str, str | int] = {}
        self.validation_corpora: tuple[str, ...] = ()
        self._step_sums: Sums = {}
        self._summed_step = -1
        self._validation_sums: Sums = {}
        self.decoder = Decoder(decoder)
        self.decoder.recompute = recompute
        self.compiles_blocks = compile_blocks
        self.records_steps = record_steps
        self._step_graph: StepGraph | None = None
        if compile_blocks:
            for block in self.decoder.blocks():
                block.compile()
        if not any(parameter.is_meta for parameter in self.decoder.parameters()):
            self.initialize_weights()

    def initialize_weights(self) -> None:
        """Draw the decoder's first weights, or this rank's shards of them."""
        self.decoder.initialize_weights(self.seed)
        if self.load_first_weights is not None:
            self.load_first_weights(self.decoder)

    @property
    def running_decoder(self) -> Decoder:
        """What computes: the decoder, or the one of its working weights."""
        return self.decoder if self.working_weights is None else self.working_weights.decoder

    def on_train_start(self) -> None:
        """Round what a checkpoint has brought, and record steps where nothing in them waits for the host."""
        if self.working_weights is not None:
            self.working_weights.refresh()
        if self.records_steps and self.device.type == "cuda":
            self._step_graph = self._recording()

    def _recording(self) -> StepGraph | None:
        """What launches steps as graphs; None where something in them waits for the host."""
        decoder, n_accumulated = self.running_decoder, self.trainer.accumulate_grad_batches
        scales_loss = isinstance(self.trainer.precision_plugin, LossScalingPrecision)
        are_alike = n_accumulated == 1 or getattr(self.trainer.strategy, "reduces_every_micro_batch", False)
        if not can_record(self.trainer.world_size, are_alike, scales_loss):
            return None
        bound = bound_rows(decoder, self.device)
        if bound is None and decoder.waits_for_host:
            return None
        return StepGraph(self._share_of_step, decoder.parameters(), n_accumulated, bound)

    def on_train_end(self) -> None:
        """Let go of the graph's memory."""
        self.release_recording()

    def release_recording(self) -> None:
        """Compute further steps, if there are any, kernel by kernel."""
        if self._step_graph is not None:
            self._step_graph.release()
        self._step_graph = None

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """The loss of one micro-batch, the tokens each expert received [layers, E], and the parts of the loss as Sums.

        What is logged are the means over the optimizer step's micro-batches so far: with its last one, the step's own.
        """
        if self._summed_step != self.global_step:
            self._step_sums, self._summed_step = {}, self.global_step
            # Lightning would only drop the last step's gradients after this forward pass.
            self.optimizers().zero_grad()  # type: ignore[union-attr]
        inputs = batch, self._ahead_shares().to(batch.tokens.device, non_blocking=True)
        compute = self._share_of_step if self._step_graph is None else self._step_graph.compute
        loss, (sums, expert_load) = compute(*inputs)
        self._step_sums = _added(self._step_sums, sums)
        if is_logged(self.trainer, self.global_step + 1):
            self.log_dict({name: mean.float() for name, mean in self.global_means(self._step_sums).items()})
            # As a number, Lightning would bring it to the GPU, and wait.
            self.log("train/learning_rate", torch.tensor(self._learning_rate()))
        return {"loss": loss, "expert_load": expert_load, "sums": sums}

    def _share_of_step(self, batch: Batch, ahead_shares: Tensor) -> tuple[Tensor, tuple[Sums, Tensor]]:
        """A micro-batch's loss, and beside it what it was summed from, and every expert's tokens [layers, E]."""
        output = self.predict(batch)
        loss, sums = self.objective_loss(output, batch, ahead_shares.unbind())
        return loss, (sums, expert_loads(output.routings) if output.routings else loss.new_zeros(0, 0))

    def predict(self, batch: Batch) -> DecoderLosses:
        """The decoder's losses over a batch; padding counts in no routing."""
        decoder, document_ids = self.running_decoder, batch.document_ids[:, : batch.n_positions]
        tokens, targets = batch.tokens[:, :-1], batch.targets()
        # The kernel is for a GPU and 16 bits.
        has_kernel = self.working_weights is not None and fits_borders(decoder.config)
        if self.attend_across_documents:
            # Of plain causal attention torch knows no kernel for a part of the queries.
            by_row = has_kernel and decoder.shared_rows is not None
            borders = DocumentBorders.of_rows(len(document_ids), batch.n_positions, self.device) if by_row else None
            output = decoder.losses(tokens, targets, borders=borders)
        else:
            # Stretches that differ from batch to batch would have blocks compiled anew, and a GPU wait for the host.
            decoder.attends_by_document = document_ids.device.type == "cpu" and not self.compiles_blocks
            positions = batch.positions[:, : batch.n_positions]
            borders = batch.borders if has_kernel else None
            output = decoder.losses(tokens, targets, document_ids, positions, borders)
        are_real = (decoder.own_part(document_ids) >= 0).flatten()
        return output._replace(routings=[routing._replace(are_real=are_real) for routing in output.routings])

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Lightning's hook: gradients of the loss, which a graph has computed along with it."""
        if self._step_graph is not None and self._step_graph.was_replayed:
            # Working weights are summed up where they are handed over.
            self._step_graph.place_gradients(self._accumulates and self.working_weights is None)
        else:
            super().backward(loss, *args, **kwargs)

    def on_after_backward(self) -> None:
        """Let the trained weights have the gradients of those that computed."""
        if self.working_weights is not None:
            self.working_weights.hand_over_gradients(self._accumulates)

    @property
    def _accumulates(self) -> bool:
        return self.trainer.accumulate_grad_batches > 1

    def _ahead_shares(self) -> Tensor:
        """λ_k / D of every depth of multi-token prediction, at this step [D]."""
        depth, progress = self.decoder.config.num_nextn_predict_layers, self.global_step / self.max_steps
        shares = torch.tensor(self.objective.mtp_shares(depth, progress), dtype=torch.float32)
        return shares.pin_memory() if self.device.type == "cuda" else shares

    def objective_loss(
        self, output: DecoderLosses, batch: Batch, ahead_shares: Sequence[float | Tensor]
    ) -> tuple[Tensor, Sums]:
        """What is minimised, and its parts by their metrics' names.

        λ_LM · L + Σ_k λ_k / D · L_k over D depths of multi-token prediction, and the balance losses by their weights.
        Each L is the mean over all targets of its depth in the whole optimizer step. The loss is this micro-batch's and
        rank's share: the ranks' sum, and the micro-batches' mean, is minimised. The parts are this rank's.
        """
        rows, n_sharing = self.decoder.shared_rows, self.decoder.n_sharing
        n_readers = 1 if self._trainer is None else self.trainer.world_size // n_sharing
        add_up = Tensor.detach if rows is None else rows.add_up
        # How many targets the step has is known before its first micro-batch: accumulated micro-batches and parallel
        # ranks add up to exactly one large batch.
        n_step = n_readers * batch.n_targets.sum(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
        n_main, *n_ahead = n_step.to(torch.float32)
        loss = self.objective.lm_weight * output.sums[0] / n_main
        for share, ahead, n_targets in zip(ahead_shares, output.sums[1:], n_ahead, strict=True):
            loss = loss + share * ahead / n_targets
        sums = _named_sums("train", output)
        if self.objective.sequence_balance_weight and output.routings:
            n_sequences = len(output.routings) * batch.tokens.shape[0]
            balance = sequence_balance_loss(joined(output.routings), n_sequences, add_up)
            loss = loss + self.objective.sequence_balance_weight * balance / n_readers
            sums["train/balance_loss"] = (balance, torch.full_like(balance, 1 / n_sharing))
        if self.objective.switch_balance_weight and output.routings:
            balance = switch_balance_loss(joined(output.routings), len(output.routings), add_up)
            loss = loss + self.objective.switch_balance_weight * balance / n_readers
            sums["train/switch_balance_loss"] = (balance, torch.full_like(balance, 1 / n_sharing))
        return loss, {name: (total.detach(), count) for name, (total, count) in sums.items()}

    def on_validation_epoch_start(self) -> None:
        """Begin to sum; a recording's bound is for what it watches itself."""
        self._validation_sums = {}
        if self._step_graph is not None:
            self._step_graph.lift_bound()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add up the losses over real targets, and count these: of all corpora, and of each where there are several."""
        sums = _named_sums("val", self.predict(batch))
        if self.validation_corpora:
            sums[f"val/loss/{self.validation_corpora[dataloader_idx]}"] = sums["val/loss"]
        self._validation_sums = _added(self._validation_sums, sums)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all ranks; Lightning's own would round down the ranks' mean number of targets."""
        for name, mean in self.global_means(self._validation_sums).items():
            self.log(name, mean.float(), prog_bar=name == "val/loss")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save which training this is and the averaged parameters, also where only weights are saved."""
        if self.identity:
            checkpoint["identity"] = self.identity
        if self.parameter_average:
            checkpoint["parameter_average"] = self.parameter_average

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the averaged parameters."""
        self.parameter_average = checkpoint.get("parameter_average", {})

    def configure_optimizers(self) -> Any:
        """The configured optimizer, and the schedule stepped every optimizer step."""
        optimizer = build_optimizer(self.decoder, self.optimizer_config, self.working_weights)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.schedule.ratio(step, self.max_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the total norm of all gradients, log what it was before, and have it checked."""
        limit = float("inf") if gradient_clip_val is None else float(gradient_clip_val)
        fused = getattr(optimizer, "optimizer", optimizer)
        norm = fused.clip(limit) if isinstance(fused, FusedAdamW) else clip_gradients(self.parameters(), limit)
        if is_logged(self.trainer, self.global_step + 1):
            self.log("train/gradient_norm", norm)
        if self.check_gradients is not None:
            self.check_gradients(optimizer, norm)

    def global_means(self, sums: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Means over all ranks, from this rank's sums and counts, in one reduction."""
        table = torch.stack([torch.stack((total.detach(), count.to(total.dtype))) for total, count in sums.values()])
        if self._trainer is not None:
            table = self.trainer.strategy.reduce(table, reduce_op="sum")
        return dict(zip(sums, table[:, 0] / table[:, 1].clamp_min(1), strict=True))

    def _learning_rate(self) -> float:
        optimizer = self.optimizers()
        assert isinstance(optimizer, torch.optim.Optimizer) or hasattr(optimizer, "param_groups")
        return optimizer.param_groups[0]["lr"]


def _named_sums(prefix: str, output: DecoderLosses) -> Sums:
    names = [f"{prefix}/loss", *(f"{prefix}/mtp_loss_{depth}" for depth in range(1, len(output.sums)))]
    return dict(zip(names, zip(output.sums, output.n_targets, strict=True), strict=True))


def _added(sums: Sums, more: Sums) -> Sums:
    """Both together, in FP64; what only one of them has stays."""
    added = dict(sums)
    for name, (total, count) in more.items():
        total = total.double()
        added[name] = (sums[name][0] + total, sums[name][1] + count) if name in sums else (total, count)
    return added
