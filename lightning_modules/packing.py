"""Packing: whole documents into windows, each into the fullest that still has room for it."""

from bisect import bisect_left, insort

import numpy as np
import torch
from torch.utils.data import Dataset

from lightning_modules.batch import Batch
from lightning_modules.documents import Documents

# What a saved position counts windows of; another way of packing needs another name.
PACKING = "best-fit"
# What a random stream is for.
_DOCUMENTS, _WINDOWS, _WITHIN_WINDOW = 1, 2, 3


def best_fit_decreasing(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Which bin each item goes to [N], from 0 on: an item to the fullest bin that has room, the longest items first.

    Items of one length are placed together, so that time grows with the number of different lengths rather than with
    that of items.

    Args:
        lengths: of the items [N], falling, from 1 to `capacity`.
        capacity: of a bin.
    """
    bins = np.empty(len(lengths), dtype=np.int64)
    rooms: list[int] = []  # the different amounts of room that open bins have left, rising
    open_bins: dict[int, list[np.ndarray]] = {}
    n_bins = placed = 0

    def leave_open(room: int, numbers: np.ndarray) -> None:
        if room and len(numbers):
            if room not in open_bins:
                insort(rooms, room)
            open_bins.setdefault(room, []).append(numbers)

    for length, count in zip(*_falling_counts(lengths), strict=True):
        while count:
            place = bisect_left(rooms, length)
            room = rooms.pop(place) if place < len(rooms) else capacity
            a_bin_holds = room // length
            n_needed = -(-count // a_bin_holds)
            numbers = np.concatenate(open_bins.pop(room)) if room in open_bins else np.arange(n_bins, n_bins + n_needed)
            n_bins = max(n_bins, int(numbers.max()) + 1)
            used, unused = numbers[:n_needed], numbers[n_needed:]
            n_now = min(count, len(used) * a_bin_holds)
            bins[placed : placed + n_now] = np.repeat(used, a_bin_holds)[:n_now]
            n_full, rest = divmod(n_now, a_bin_holds)
            leave_open(room, unused)
            leave_open(room - a_bin_holds * length, used[:n_full])
            leave_open(room - rest * length, used[n_full:])
            placed += n_now
            count -= n_now
    return bins


def _falling_counts(lengths: np.ndarray) -> tuple[list[int], list[int]]:
    """The different lengths, falling, and how often each occurs."""
    different, counts = np.unique(lengths, return_counts=True)
    return different[::-1].tolist(), counts[::-1].tolist()


class PackedDocuments(Dataset[Batch]):
    """Documents packed whole into windows, in a fresh order every epoch.

    A document that fits into a window is never cut (best-fit packing, arXiv 2404.10830). A longer one is cut into
    pieces that fill windows, and a rest that is packed as documents are; a piece keeps the positions that its tokens
    have in the document. Every token is an input exactly once an epoch, and every token but a document's first a
    target.

    Window i is a pure function of (documents, seed, i): training can stop and go on anywhere, on any number of ranks.
    Indices run on over epochs without end. Which lengths share a window is decided once; which documents of these
    lengths do, and when, anew every epoch. An epoch's order takes 16 bytes a document beside the documents' own index.

    Args:
        documents: the token documents.
        sequence_length: T, input tokens of a window.
        lookahead: tokens beyond the window that targets need: 1 + the depth of multi-token prediction.
        seed: of the order; None keeps the documents' own among those of one length.
    """

    def __init__(self, documents: Documents, sequence_length: int, lookahead: int, seed: int | None) -> None:
        self.documents = documents
        self.sequence_length = sequence_length
        self.lookahead = lookahead
        self.seed = seed
        if int(documents.lengths.sum()) == 0:
            raise ValueError("There are no tokens to train on; run prepare-data on a corpus that holds speech.")
        bins = best_fit_decreasing(np.sort(self._rests())[::-1], sequence_length)
        self._slots_by_bin = np.argsort(bins, kind="stable")
        self._bin_starts = np.searchsorted(bins[self._slots_by_bin], np.arange(bins.max() + 2))
        n_full_pieces = (documents.lengths - 1) // sequence_length
        # A document longer than a window stands here once for every window that it fills.
        self._cut_documents = np.repeat(np.arange(len(documents)), n_full_pieces)
        self._first_pieces = np.cumsum(n_full_pieces) - n_full_pieces
        self.windows_per_epoch = len(self._bin_starts) - 1 + len(self._cut_documents)
        self._n_targets = self._count_targets(bins)
        self._epoch = -1
        self._window_order = np.zeros(0, dtype=np.int64)
        self._rests_by_bin = np.zeros(0, dtype=np.int64)

    @property
    def packing(self) -> str:
        """What a saved position counts windows of."""
        return PACKING

    @property
    def longest_stretch(self) -> int:
        """Tokens of the longest piece of one document that lies in one window: as far as attention can be trained."""
        return min(self.sequence_length, int(self.documents.lengths.max()))

    @property
    def n_cut(self) -> int:
        """Documents that are longer than a window."""
        return int((self.documents.lengths > self.sequence_length).sum())

    def describe_cuts(self) -> str | None:
        """How many documents no window holds, in a sentence; None: none."""
        if not self.n_cut:
            return None
        return (
            f"{self.n_cut:,} of {len(self.documents):,} documents are longer than trainer.sequence_length "
            f"({self.sequence_length}) and are cut: no distance beyond it is trained, and evaluation sees longer ones "
            "through windows of that length."
        )

    def describe_shortness(self) -> str | None:
        """What no window can teach, in a sentence, where all documents are far shorter; None: nothing."""
        if 2 * self.longest_stretch >= self.sequence_length:
            return None
        return (
            f"The longest document has {self.longest_stretch:,} tokens, and trainer.sequence_length is "
            f"{self.sequence_length:,}: nothing beyond the former is trained. Prepare longer documents "
            "(data.utterances.join_seconds, data.utterances.max_seconds), or lower trainer.sequence_length."
        )

    def __len__(self) -> int:
        """Windows of one epoch."""
        return self.windows_per_epoch

    def __getitem__(self, index: int) -> Batch:
        """Window `index`: [T + lookahead] tokens, document ids and positions; what is not filled is document -1."""
        epoch, place = divmod(index, self.windows_per_epoch)
        self._enter_epoch(epoch)
        size = self.sequence_length + self.lookahead
        tokens = np.zeros(size, dtype=np.int64)
        document_ids = np.full(size, -1, dtype=np.int64)
        positions = np.zeros(size, dtype=np.int64)
        filled = 0
        for number, (document, start) in enumerate(self._pieces(epoch, int(self._window_order[place]))):
            piece = self.documents[document][start : start + size]
            stretch = slice(filled, filled + len(piece))
            tokens[stretch] = piece
            document_ids[stretch] = number
            positions[stretch] = np.arange(start, start + len(piece))
            filled += len(piece)
        n_targets = self._n_targets[self._window_order[place]].astype(np.float64)
        as_tensor = torch.from_numpy
        return Batch(as_tensor(tokens), as_tensor(document_ids), as_tensor(positions), as_tensor(n_targets))

    def mean_targets(self, first: int, n_windows: int) -> torch.Tensor:
        """How many targets of each depth [lookahead] windows `first` and following have on average."""
        total = np.zeros(self.lookahead)
        index = first
        while index < first + n_windows:
            epoch, place = divmod(index, self.windows_per_epoch)
            order = self._window_order if epoch == self._epoch else self._order_of_windows(epoch)
            windows = order[place : place + first + n_windows - index]
            total += self._n_targets[windows].sum(axis=0)
            index += len(windows)
        return torch.from_numpy(total / n_windows)

    def _pieces(self, epoch: int, window: int) -> list[tuple[int, int]]:
        """What lies in a window by its number in the plan: documents, and where in them each piece starts."""
        n_bins = len(self._bin_starts) - 1
        if window >= n_bins:
            document = int(self._cut_documents[window - n_bins])
            piece = window - n_bins - int(self._first_pieces[document])
            return [(document, piece * self.sequence_length)]
        held = self._rests_by_bin[self._bin_starts[window] : self._bin_starts[window + 1]]
        if self.seed is not None:
            held = np.random.default_rng((self.seed, epoch, _WITHIN_WINDOW, window)).permutation(held)
        lengths = self.documents.lengths
        return [(int(d), int(lengths[d] - 1) // self.sequence_length * self.sequence_length) for d in held]

    def _rests(self) -> np.ndarray:
        """What is left of each document once the windows that it fills are cut off: from 1 to T tokens."""
        return (self.documents.lengths - 1) % self.sequence_length + 1

    def _count_targets(self, bins: np.ndarray) -> np.ndarray:
        """Targets of each depth in every window of the plan [windows, lookahead]: lengths alone decide them."""
        rests = np.sort(self._rests())[::-1]
        columns = []
        starts = (np.arange(len(self._cut_documents)) - self._first_pieces[self._cut_documents]) * self.sequence_length
        left = self.documents.lengths[self._cut_documents] - starts
        for ahead in range(1, self.lookahead + 1):
            of_bins = np.bincount(bins, weights=np.maximum(rests - ahead, 0))
            of_pieces = np.minimum(left - ahead, self.sequence_length)
            columns.append(np.concatenate((of_bins, of_pieces)).astype(np.int64))
        return np.stack(columns, axis=1)

    def _order_of_windows(self, epoch: int) -> np.ndarray:
        """The plan's windows in the order of an epoch."""
        windows = np.arange(self.windows_per_epoch)
        return (
            windows if self.seed is None else np.random.default_rng((self.seed, epoch, _WINDOWS)).permutation(windows)
        )

    def _enter_epoch(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        documents = np.arange(len(self.documents))
        if self.seed is not None:
            documents = np.random.default_rng((self.seed, epoch, _DOCUMENTS)).permutation(documents)
        self._window_order = self._order_of_windows(epoch)
        falling = documents[np.argsort(-self._rests()[documents], kind="stable")]
        self._rests_by_bin = falling[self._slots_by_bin]
        self._epoch = epoch
