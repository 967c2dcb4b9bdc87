"""From documents of tokens to packed batches, at any position of training."""

from collections.abc import Iterator
from typing import Protocol

import lightning as L  # noqa: N812
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from lightning_modules.language_model import Batch


class Documents(Protocol):
    """Random access to documents of token ids."""

    lengths: np.ndarray

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...


class PackedDocuments(Dataset[Batch]):
    """Documents laid end to end in a fresh order every epoch, and cut into windows.

    Window i is a pure function of (documents, seed, i): training can stop and go on anywhere, on any number of ranks,
    and every token is an input exactly once an epoch. Indices run on over epochs without end.

    Args:
        documents: the token documents.
        sequence_length: T, input tokens of a window.
        lookahead: tokens beyond the window that targets need: 1 + the depth of multi-token prediction.
        seed: of the order; None keeps the documents' own.
    """

    def __init__(self, documents: Documents, sequence_length: int, lookahead: int, seed: int | None) -> None:
        self.documents = documents
        self.sequence_length = sequence_length
        self.lookahead = lookahead
        self.seed = seed
        self.n_tokens = int(documents.lengths.sum())
        if self.n_tokens == 0:
            raise ValueError("There are no tokens to train on; run prepare-data on a corpus that holds speech.")
        self.windows_per_epoch = -(-self.n_tokens // sequence_length)
        self._epoch = -1
        self._order = np.zeros(0, dtype=np.int64)
        self._ends = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        """Windows of one epoch."""
        return self.windows_per_epoch

    def __getitem__(self, index: int) -> Batch:
        """Window `index`: [T + lookahead] tokens and document ids; the epoch's end is padded with document -1."""
        epoch, window = divmod(index, self.windows_per_epoch)
        self._enter_epoch(epoch)
        start = window * self.sequence_length
        size = self.sequence_length + self.lookahead
        tokens = np.zeros(size, dtype=np.int64)
        document_ids = np.full(size, -1, dtype=np.int64)
        filled = 0
        place = int(np.searchsorted(self._ends, start, side="right"))
        while filled < size and place < len(self._order):
            document = self.documents[self._order[place]]
            offset = start + filled - (int(self._ends[place]) - len(document))
            piece = document[offset : offset + size - filled]
            tokens[filled : filled + len(piece)] = piece
            document_ids[filled : filled + len(piece)] = place
            filled += len(piece)
            place += 1
        return Batch(torch.from_numpy(tokens), torch.from_numpy(document_ids))

    def _enter_epoch(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        n_documents = len(self.documents)
        if self.seed is None:
            self._order = np.arange(n_documents)
        else:
            self._order = np.random.default_rng((self.seed, epoch)).permutation(n_documents)
        self._ends = np.cumsum(self.documents.lengths[self._order])
        self._epoch = epoch


class RankSlices(Sampler[int]):
    """This rank's window indices, batch after batch: rank r of W takes every batch W · k + r.

    Args:
        n_batches: batches of the whole training, per rank.
        batch_size: windows a batch.
        rank: this rank.
        world_size: ranks that share the windows.
        first_batch: where to begin, when training goes on from a checkpoint. The length stays that of the whole.
    """

    def __init__(self, n_batches: int, batch_size: int, rank: int, world_size: int, first_batch: int = 0) -> None:
        self.n_batches = n_batches
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.first_batch = first_batch

    def __len__(self) -> int:
        return self.n_batches * self.batch_size

    def __iter__(self) -> Iterator[int]:
        for batch in range(self.first_batch, self.n_batches):
            start = (batch * self.world_size + self.rank) * self.batch_size
            yield from range(start, start + self.batch_size)


def collate(windows: list[Batch]) -> Batch:
    """Stack windows into a batch [B, T + lookahead]."""
    return default_collate(windows)


class SpeechTokens(L.LightningDataModule):
    """Batches of packed speech tokens for training and validation.

    Args:
        train: training documents.
        validation: validation documents.
        sequence_length: input tokens of a window.
        lookahead: 1 + the depth of multi-token prediction.
        batch_size: windows a device and micro-batch.
        n_batches: micro-batches of the whole training, per rank.
        seed: of the order of training documents.
    """

    def __init__(
        self,
        train: Documents,
        validation: Documents,
        sequence_length: int,
        lookahead: int,
        batch_size: int,
        n_batches: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.n_batches = n_batches
        self.train_windows = PackedDocuments(train, sequence_length, lookahead, seed)
        self.validation_windows = PackedDocuments(validation, sequence_length, lookahead, seed=None)

    def train_dataloader(self) -> DataLoader[Batch]:
        """All batches of the training as one pass; after a resume, from the first batch not yet trained on."""
        assert self.trainer is not None
        done = self.trainer.global_step * self.trainer.accumulate_grad_batches
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        sampler = RankSlices(self.n_batches, self.batch_size, rank, world_size, first_batch=done)
        return DataLoader(self.train_windows, batch_size=self.batch_size, sampler=sampler, collate_fn=collate)

    def val_dataloader(self) -> DataLoader[Batch]:
        """This rank's validation windows, in the documents' own order."""
        assert self.trainer is not None
        windows = range(self.trainer.global_rank, len(self.validation_windows), self.trainer.world_size)
        return DataLoader(
            self.validation_windows, batch_size=self.batch_size, sampler=list(windows), collate_fn=collate
        )
