"""From windows of packed documents to batches, at any position of training."""

from collections.abc import Iterator, Mapping
from typing import Any

import lightning as L  # noqa: N812
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from lightning_modules.batch import Batch
from lightning_modules.documents import Documents
from lightning_modules.mixture import MixedWindows, Mixture
from lightning_modules.model.document_borders import FEWEST, SHORTEST
from lightning_modules.packing import PackedDocuments
from lightning_modules.parallel.configuration import ParallelConfig


class OptimizerSteps(Dataset[Batch]):
    """A training's windows, each with how many targets the windows of its optimizer step have on average.

    Losses are divided by that: it has to be known before the step's first micro-batch, on every rank.

    Args:
        windows: the windows.
        first_window: where training begins or goes on, with a whole step.
        windows_per_step: of all ranks and micro-batches.
    """

    def __init__(self, windows: PackedDocuments | MixedWindows, first_window: int, windows_per_step: int) -> None:
        self.windows = windows
        self.first_window = first_window
        self.windows_per_step = windows_per_step
        self._step = -1
        self._n_targets = torch.zeros(0)

    def __getitem__(self, index: int) -> Batch:
        """Window `index`, as the windows are counted."""
        step = (index - self.first_window) // self.windows_per_step
        window = self.windows[index]
        if step != self._step:
            first = self.first_window + step * self.windows_per_step
            self._step, self._n_targets = step, self.windows.mean_targets(first, self.windows_per_step)
        return window._replace(n_targets=self._n_targets)


class OnePass(Dataset[Batch]):
    """The windows of one epoch, and empty ones without end after them: no token, and document -1 throughout.

    Ranks that share the windows can so be given equally many, which experts spread over ranks depend on: all have to
    take part in every batch.
    """

    def __init__(self, windows: PackedDocuments) -> None:
        self.windows = windows

    def __len__(self) -> int:
        """Windows that are not empty."""
        return len(self.windows)

    def __getitem__(self, index: int) -> Batch:
        """Window `index` of the first epoch, or an empty one of the same shapes."""
        if index < len(self.windows):
            return self.windows[index]
        lookahead = self.windows.lookahead
        nothing = torch.zeros(self.windows.sequence_length + lookahead, dtype=torch.int64)
        return Batch(nothing, torch.full_like(nothing, -1), nothing, torch.zeros(lookahead, dtype=torch.float64))


class RankSlices(Sampler[int]):
    """This rank's window indices, batch after batch: of every W batches in a row, reader r of W takes the r-th.

    Args:
        n_batches: batches of the whole training, per rank.
        batch_size: windows a batch.
        reader: this rank, as `ParallelConfig.reader` counts.
        n_readers: W, that windows are dealt out to.
        first_batch: where to begin, when training goes on from a checkpoint. The length stays that of the whole.
        first_window: the first window that no rank has trained on, where `first_batch` begins.
    """

    def __init__(
        self,
        n_batches: int,
        batch_size: int,
        reader: int,
        n_readers: int,
        first_batch: int = 0,
        first_window: int = 0,
    ) -> None:
        self.n_batches = n_batches
        self.batch_size = batch_size
        self.reader = reader
        self.n_readers = n_readers
        self.first_batch = first_batch
        self.first_window = first_window

    def __len__(self) -> int:
        return self.n_batches * self.batch_size

    def __iter__(self) -> Iterator[int]:
        for batch in range(self.first_batch, self.n_batches):
            yield from self.windows(batch, self.reader)

    def windows(self, batch: int, reader: int) -> range:
        """The windows of any reader's batch, not before the first."""
        before = (batch - self.first_batch) * self.n_readers + reader
        start = self.first_window + before * self.batch_size
        return range(start, start + self.batch_size)


class Collate:
    """Stacks windows into batches [B, T + lookahead], and finds their documents' borders while the host knows them.

    Room for these only grows: a GPU that has recorded a step has to do so again with more room, but not with less.
    """

    def __init__(self) -> None:
        self._room = FEWEST, SHORTEST

    def __call__(self, windows: list[Batch]) -> Batch:
        """A batch of these windows."""
        batch = Batch(*default_collate([window[:4] for window in windows])).with_borders(self._room)
        assert batch.borders is not None
        self._room = batch.borders.room
        return batch


def batches_of(
    windows: OptimizerSteps, sampler: RankSlices, batch_size: int, collate: Collate, on_gpu: bool = False
) -> DataLoader[Batch]:
    """A training's batches, one after another.

    Args:
        windows: what they hold.
        sampler: which of them.
        batch_size: windows of each.
        collate: makes a batch of windows.
        on_gpu: where they go to. Copied from memory that is not pinned, a batch has the host wait for all that a GPU
            has yet to do.
    """
    return DataLoader(windows, batch_size, sampler=sampler, collate_fn=collate, pin_memory=on_gpu)


class SpeechTokens(L.LightningDataModule):
    """Batches of packed speech tokens for training and validation.

    The position of a training is one number, the windows that all ranks together have trained on. Checkpoints hold it,
    and a training goes on at the very next window, also with other numbers of ranks, windows a batch, or batches a
    step. It counts whole optimizer steps: batches loaded ahead, or of a step that was not completed, are not lost.

    Args:
        train: training documents, of one corpus or several.
        validation: validation documents, of one corpus or, by name, of several, which are validated one after another.
        sequence_length: input tokens of a window.
        lookahead: 1 + the depth of multi-token prediction.
        batch_size: windows a device and micro-batch.
        n_batches: micro-batches of the whole training, per rank.
        seed: of the order of training documents.
    """

    def __init__(
        self,
        train: Documents | Mixture,
        validation: Documents | Mapping[str, Documents],
        sequence_length: int,
        lookahead: int,
        batch_size: int,
        n_batches: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.n_batches = n_batches
        self.train_windows: PackedDocuments | MixedWindows
        if isinstance(train, Mixture):
            self.train_windows = MixedWindows(train, sequence_length, lookahead, seed)
        else:
            self.train_windows = PackedDocuments(train, sequence_length, lookahead, seed)
        corpora = list(validation.values()) if isinstance(validation, Mapping) else [validation]
        self.validation_windows = [PackedDocuments(one, sequence_length, lookahead, seed=None) for one in corpora]
        self._collate = Collate()
        self._loaded_position: int | None = None
        self._sampler: RankSlices | None = None

    def train_dataloader(self) -> DataLoader[Batch]:
        """All batches of the training as one pass; after a resume, from the first window not yet trained on."""
        trainer = self.trainer
        assert trainer is not None
        reader, n_readers = readers(trainer)
        done = trainer.global_step * trainer.accumulate_grad_batches
        position, self._loaded_position = self._loaded_position, None
        if position is None:  # a checkpoint from before it was saved; the sizes are those of then
            position = done * n_readers * self.batch_size
        _recount_batches(trainer, done)
        self._sampler = RankSlices(self.n_batches, self.batch_size, reader, n_readers, done, position)
        windows_per_step = n_readers * self.batch_size * trainer.accumulate_grad_batches
        windows = OptimizerSteps(self.train_windows, position, windows_per_step)
        on_gpu = trainer.strategy.root_device.type == "cuda"
        return batches_of(windows, self._sampler, self.batch_size, self._collate, on_gpu)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """This rank's validation windows of each corpus, in the documents' own order.

        Every rank has equally many of each, some of them empty.
        """
        return [self._validation_loader(windows) for windows in self.validation_windows]

    def _validation_loader(self, windows: PackedDocuments) -> DataLoader[Batch]:
        assert self.trainer is not None
        reader, n_readers = readers(self.trainer)
        n_windows = -(-len(windows) // n_readers) * n_readers
        return DataLoader(
            OnePass(windows),
            batch_size=self.batch_size,
            sampler=range(reader, n_windows, n_readers),
            collate_fn=self._collate,
        )

    def windows_of(self, batch_idx: int, rank: int) -> range:
        """The training windows of any rank's micro-batch, by Lightning's count of micro-batches."""
        assert self._sampler is not None, "there are no training batches before train_dataloader"
        assert self.trainer is not None
        return self._sampler.windows(batch_idx, _parallel(self.trainer).reader(rank))

    def state_dict(self) -> dict[str, Any]:
        """Where training is, as plain numbers; empty before it has begun."""
        if self._sampler is None or self.trainer is None:
            return {}
        done = self.trainer.global_step * self.trainer.accumulate_grad_batches
        return {
            "windows": self._sampler.windows(done, reader=0).start,
            "sequence_length": self.train_windows.sequence_length,
            "packing": self.train_windows.packing,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where another training stopped; Lightning calls this before it asks for batches.

        Raises:
            ValueError: that training packed other windows.
        """
        length = self.train_windows.sequence_length
        if state_dict["sequence_length"] != length:
            raise ValueError(
                f"The checkpoint counts windows of {state_dict['sequence_length']} tokens, and trainer.sequence_length "
                f"is {length}; resume with the former, or begin a new training from its weights (trainer.start_from)."
            )
        if state_dict.get("packing") != self.train_windows.packing:
            raise ValueError(
                "The checkpoint counts windows that were packed in another way, by another version or of another "
                "mixture; finish that training with it, or begin a new one from its weights (trainer.start_from)."
            )
        self._loaded_position = state_dict["windows"]


def readers(trainer: L.Trainer) -> tuple[int, int]:
    """Which reader of batches this rank is, and of how many; ranks that share windows read the same ones."""
    parallel = _parallel(trainer)
    return parallel.reader(trainer.global_rank), trainer.world_size // parallel.cp


def _parallel(trainer: L.Trainer) -> ParallelConfig:
    config = getattr(trainer.strategy, "config", None)
    return config if isinstance(config, ParallelConfig) else ParallelConfig()


def _recount_batches(trainer: L.Trainer, done: int) -> None:
    """Make Lightning's count of micro-batches `done`, whatever their number a step was before a resume.

    It decides when a step is complete, when validation is due, and when the training is over. A checkpoint written
    within a batch's last hooks counts that batch as processed but not completed, which Lightning mends by itself.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    counts: tuple[Any, Any] = (progress.total, progress.current)
    for count in counts:
        unfinished = count.processed - count.completed
        count.ready = count.started = count.processed = done
        count.completed = done - unfinished
