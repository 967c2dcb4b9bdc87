"""A training with one token that spoils whatever sees it; and the same training written out, without Lightning."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from lightning_modules.configuration import AnomalyConfig, OptimizerConfig, TrainerConfig
from lightning_modules.data_module import Collate, OptimizerSteps, SpeechTokens
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.schedule import ScheduleConfig
from lightning_modules.trainer import build_trainer
from tests.lightning_modules.documents import ListedDocuments
from tests.lightning_modules.memory_logger import MemoryLogger

POISON = 39  # a token whose embedding is not a number
POISONED_WINDOW = 14
ACCUMULATE = 2
N_STEPS = 6
EMA_DECAY = 0.7


def random_documents(seed: int, poisoned: int | None = None) -> ListedDocuments:
    """Random documents; one begins with the poison."""
    rng = np.random.default_rng(seed)
    documents = [rng.integers(0, POISON, rng.integers(5, 40)) for _ in range(60)]
    if poisoned is not None:
        documents[poisoned][0] = POISON
    return ListedDocuments(documents)


def data_module(documents: ListedDocuments, batch_size: int) -> SpeechTokens:
    n_batches = N_STEPS * ACCUMULATE
    return SpeechTokens(documents, random_documents(seed=2), 16, 2, batch_size, n_batches, seed=3)


def poisoned_windows(data: SpeechTokens) -> list[int]:
    windows = data.train_windows
    return [i for i in range(len(windows)) if POISON in windows[i].tokens[:-1]]


def poisoned_data(batch_size: int) -> SpeechTokens:
    """Of whose windows `POISONED_WINDOW` alone holds the poison: step 3's second micro-batch of two windows."""
    candidates = (data_module(random_documents(1, poisoned), batch_size) for poisoned in range(60))
    return next(data for data in candidates if poisoned_windows(data) == [POISONED_WINDOW])


def language_model(decoder: DecoderConfig, device: str = "cpu") -> LanguageModel:
    """With the poison in its embedding, at once or, on "meta", when a strategy has it initialised."""
    with torch.device(device):
        model = LanguageModel(
            decoder, ObjectiveConfig(1.0, 0.3, 0.01, 1e-3), OptimizerConfig(1e-2, (0.9, 0.95), 0.1, 1e-8),
            ScheduleConfig(2, 0.5, 0.1), N_STEPS, seed=1,
        )  # fmt: skip
    model.load_first_weights = poison
    if device == "cpu":
        model.initialize_weights()
    return model


@torch.no_grad()
def poison(decoder: Any) -> None:
    """Put what is not a number into the embedding, or into this rank's share of it."""
    weight = decoder.embed_tokens.weight
    broken = (weight.full_tensor() if isinstance(weight, DTensor) else weight).clone()
    broken[POISON] = float("nan")
    weight.copy_(
        distribute_tensor(broken, weight.device_mesh, weight.placements) if isinstance(weight, DTensor) else broken
    )


def trainer_config(batch_size: int, anomalies: AnomalyConfig) -> TrainerConfig:
    return TrainerConfig(
        accelerator="cpu", max_steps=N_STEPS, batch_size=batch_size, sequence_length=16,
        accumulate_grad_batches=ACCUMULATE, gradient_clip_val=1.0, val_every_steps=N_STEPS, log_every_steps=1,
        checkpoint_every_steps=1, attend_across_documents=False, ema_decay=EMA_DECAY, anomalies=anomalies,
    )  # fmt: skip


def fit_poisoned(decoder: DecoderConfig, folder: Path, nonfinite: str) -> tuple[LanguageModel, MemoryLogger]:
    logger = MemoryLogger()
    model = language_model(decoder)
    trainer = build_trainer(trainer_config(2, AnomalyConfig(nonfinite)), None, "fp32", logger, folder)
    trainer.fit(model, poisoned_data(2))
    return model, logger


def train_without_lightning(decoder: DecoderConfig, skipped_step: int) -> tuple[LanguageModel, dict[str, Tensor]]:
    """The same training written out, with nothing done at one step; and the mean of its parameters."""
    model, data = language_model(decoder), poisoned_data(2)
    (optimizer,) = [model.configure_optimizers()["optimizer"]]
    average = {name: p.detach().clone() for name, p in model.decoder.named_parameters()}
    for step in range(N_STEPS):
        if step == skipped_step:
            continue
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * model.schedule.ratio(step, N_STEPS)
        optimizer.zero_grad()
        load: Any = 0
        steps = OptimizerSteps(data.train_windows, 0, 2 * ACCUMULATE)
        for micro_batch in range(ACCUMULATE):
            first = 2 * (ACCUMULATE * step + micro_batch)
            batch = Collate()([steps[first], steps[first + 1]])
            output = model.predict(batch)
            shares = model.objective.mtp_shares(len(output.sums) - 1, step / N_STEPS)
            loss, _ = model.objective_loss(output, batch, shares)
            (loss / ACCUMULATE).backward()
            load = load + torch.stack([routing.load() for routing in output.routings])
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        for router, router_load in zip(model.decoder.routers(), load, strict=True):
            router.update_bias(router_load, 0.01)
        for name, parameter in model.decoder.named_parameters():
            average[name].lerp_(parameter.detach(), 1 - EMA_DECAY)
    return model, average
