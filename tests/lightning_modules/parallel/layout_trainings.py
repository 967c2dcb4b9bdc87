"""Trainings that four ranks take in every layout, and one process alone."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lightning_modules.configuration import OptimizerConfig, TrainerConfig
from lightning_modules.data_module import SpeechTokens
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.parallel.strategy import ExpertParallelStrategy
from lightning_modules.schedule import ScheduleConfig
from lightning_modules.trainer import build_trainer, model_device
from tests.conftest import TINY
from tests.lightning_modules.documents import rising_documents
from tests.lightning_modules.memory_logger import MemoryLogger

N_RANKS, GLOBAL_BATCH, ACCUMULATE, SEQUENCE = 4, 4, 2, 32
# Steps of the trainings that validate on the way, and of those that only begin.
LONG, SHORT = 6, 4
PLAIN = replace(TINY, num_hidden_layers=2)
# Segments of two widths, chosen within their experts, under a head that is the embedding.
SEGMENTED = replace(
    PLAIN, num_expert_segments=2, moe_intermediate_size=24, expert_segment_sizes=(16, 8),
    expert_segment_routing="hierarchical", num_segments_per_expert=1, tie_word_embeddings=True,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A training, and the layout that four ranks take in it."""

    layout: ParallelConfig
    decoder: DecoderConfig = PLAIN
    max_steps: int = LONG
    recompute: str = "none"
    gathered_at_once: int = 0
    first_weights: Callable[[Decoder], None] | None = None
    optimizer: str = "adamw"


@torch.no_grad()
def send_all_to_the_first_rank(decoder: Decoder) -> None:
    """Let every token choose experts 0 and 1: under ep=4 the other ranks receive no rows at all."""
    for router in decoder.routers():
        router.e_score_correction_bias[:2] = 10.0


CASES = {
    "ep2_fsdp2": Case(ParallelConfig(ep=2, dp_shard=2)),
    "ep4": Case(ParallelConfig(ep=4), recompute="activations", gathered_at_once=10**6),
    "hsdp2_ep2": Case(
        ParallelConfig(dp_replicate=2, ep=2, reduce_every_micro_batch=True),
        recompute="blocks_offloaded",
        gathered_at_once=10**6,
    ),
    "lean": Case(ParallelConfig(ep=2, dp_shard=2, reduce_every_micro_batch=True), recompute="blocks"),
    "fsdp4": Case(ParallelConfig(dp_shard=4)),
    "cp4": Case(ParallelConfig(cp=4), recompute="blocks", gathered_at_once=10**6),
    "cp2_ep2": Case(ParallelConfig(cp=2, ep=2), recompute="activations"),
    "cp2_fsdp2": Case(ParallelConfig(cp=2, dp_shard=2)),
    "segmented": Case(ParallelConfig(ep=2), SEGMENTED, max_steps=SHORT),
    "muon": Case(ParallelConfig(dp_shard=2, ep=2), max_steps=SHORT, optimizer="muon"),
    "muon_hsdp": Case(ParallelConfig(dp_replicate=2, dp_shard=2), max_steps=SHORT, optimizer="muon"),
    "skewed": Case(ParallelConfig(ep=4), max_steps=SHORT, first_weights=send_all_to_the_first_rank),
}
REFERENCES = {name: "plain" if case.max_steps == LONG else name for name, case in CASES.items()}


class Losses(L.Callback):
    """The loss of every optimizer step, over all micro-batches and ranks."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # What ranks and micro-batches return are shares of it.
        share = trainer.strategy.reduce(outputs["loss"].detach().double(), reduce_op="sum")
        step = batch_idx // ACCUMULATE
        self.losses[step] = self.losses.get(step, 0.0) + float(share)


def train(case: Case, layout: ParallelConfig | None, folder: Path, precision: str = "fp32") -> dict[str, Any]:
    """Train, validate once more by itself, and return everything that came of it."""
    # Ranks that share windows have as many more of them.
    batch_size = GLOBAL_BATCH if layout is None else GLOBAL_BATCH * layout.cp // N_RANKS
    config = TrainerConfig(
        accelerator="cpu", max_steps=case.max_steps, batch_size=batch_size, sequence_length=SEQUENCE,
        accumulate_grad_batches=ACCUMULATE, gradient_clip_val=0.5, val_every_steps=LONG // 2, log_every_steps=1,
        checkpoint_every_steps=100, attend_across_documents=False,
    )  # fmt: skip
    with torch.device(model_device(layout)):
        model = LanguageModel(
            case.decoder, ObjectiveConfig(1.0, 0.3, 0.01, 1e-2),
            OptimizerConfig(1e-3, (0.9, 0.95), 0.1, 1e-8, kind=case.optimizer), ScheduleConfig(2, 0.5, 0.1),
            case.max_steps, seed=7,
            # One process takes the plain way: to recompute must not change the ranks' results.
            recompute="none" if layout is None else case.recompute,
        )  # fmt: skip
    model.load_first_weights = case.first_weights
    if layout is None:
        model.initialize_weights()
    # Validation windows do not divide over the ranks.
    data = SpeechTokens(
        rising_documents(60, 1), rising_documents(9, 2), SEQUENCE, 2, batch_size, config.n_batches, seed=3
    )
    logger, losses = MemoryLogger(), Losses()
    trainer = build_trainer(config, layout, precision, logger, folder)
    if isinstance(trainer.strategy, ExpertParallelStrategy):
        trainer.strategy.gathered_at_once = case.gathered_at_once
    trainer.callbacks.insert(0, losses)
    trainer.fit(model, data)
    validated = trainer.validate(model, data, verbose=False)[0]
    assert model.decoder.lm_head.weight is model.decoder.embed_tokens.weight or not case.decoder.tie_word_embeddings
    weights = {name: whole(tensor) for name, tensor in model.decoder.state_dict().items()}
    return {"losses": losses.losses, "logged": logger.values, "validated": validated, "weights": weights}


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()
