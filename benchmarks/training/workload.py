"""What a training step is timed on: an experiment as conf/ composes it, and random tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import lightning as L  # noqa: N812
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.presets import compose, read_decoder
from lightning_modules.batch import Batch
from lightning_modules.configuration import OptimizerConfig, TrainerConfig
from lightning_modules.data_module import readers
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.schedule import ScheduleConfig
from pipeline.configuration.settings import read_settings
from pipeline.configuration.strategy import read_strategy


@dataclass(frozen=True)
class Workload:
    """A training by the configuration's own names.

    Attributes:
        document_length: tokens of every document that is packed into a row, whose last one is cut; None: a row is one.
    """

    decoder: DecoderConfig
    objective: ObjectiveConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    trainer: TrainerConfig
    strategy: ParallelConfig | None
    precision: str
    seed: int
    document_length: int | None

    @property
    def n_tokens(self) -> int:
        """Input tokens of one rank's step: its part of windows that ranks share."""
        n_sharing = 1 if self.strategy is None else self.strategy.cp
        return self.trainer.batch_size * self.trainer.sequence_length // n_sharing

    @property
    def mean_context(self) -> float:
        """The length of a token's document, on average over tokens: what causal attention costs half of."""
        whole, length = self.document_length or self.trainer.sequence_length, self.trainer.sequence_length
        n_whole, rest = divmod(length, whole)
        return (n_whole * whole**2 + rest**2) / length


def compose_workload(overrides: Sequence[str], document_length: int | None) -> Workload:
    """The workload that Hydra composes of the default experiment and `overrides`.

    Raises:
        ValueError: naming the setting that cannot be.
    """
    values = compose(overrides)
    decoder, objective = read_decoder(values)
    return Workload(
        decoder=decoder,
        objective=objective,
        optimizer=read_settings(OptimizerConfig, values["optimizer"], "optimizer"),
        schedule=read_settings(ScheduleConfig, values["schedule"], "schedule"),
        trainer=read_settings(TrainerConfig, values["trainer"], "trainer"),
        strategy=read_strategy(values["strategy"]),
        precision=values["precision"]["kind"],
        seed=values["seed"],
        document_length=document_length,
    )


class RandomBatches(Dataset[Batch]):
    """Batch after batch of one reader's random tokens, each a whole optimizer step; the same for the same numbers."""

    def __init__(self, workload: Workload, reader: int = 0, n_readers: int = 1) -> None:
        self.workload = workload
        self.reader = reader
        self.n_readers = n_readers

    def __len__(self) -> int:
        return self.workload.trainer.max_steps

    def __getitem__(self, step: int) -> Batch:
        if step >= len(self):
            raise IndexError(step)
        decoder, trainer = self.workload.decoder, self.workload.trainer
        depth = decoder.num_nextn_predict_layers
        size = (trainer.batch_size, trainer.sequence_length + 1 + depth)
        generator = torch.Generator().manual_seed(step * self.n_readers + self.reader)
        tokens = torch.randint(decoder.vocab_size, size, generator=generator)
        document_ids = torch.arange(size[1]) // (self.workload.document_length or size[1])
        return Batch.whole_step(tokens, document_ids.expand(size).contiguous(), depth).with_borders()


class RandomTokens(L.LightningDataModule):
    """`RandomBatches` of the rank that asks; those that share windows ask for the same."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.workload = workload

    def train_dataloader(self) -> DataLoader[Batch]:
        """All batches of the training."""
        assert self.trainer is not None
        batches = RandomBatches(self.workload, *readers(self.trainer))
        return DataLoader(batches, batch_size=None, pin_memory=self.trainer.strategy.root_device.type == "cuda")
