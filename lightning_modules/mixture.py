"""Windows of several corpora in one order, in which each has its share of the tokens."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from lightning_modules.batch import Batch
from lightning_modules.documents import Documents
from lightning_modules.packing import PackedDocuments

# Windows after which the corpora's numbers of windows repeat: shares are rounded to this fraction.
CYCLE = 2**16
# What a random stream is for, beside those of packing.
_MIXING = 4


@dataclass(frozen=True)
class Mixture:
    """Corpora to train on, and how much of each.

    Attributes:
        corpora: their documents, by name.
        weights: of each, by name: its share of the tokens is its part of their sum.
    """

    corpora: Mapping[str, Documents]
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.corpora.keys() != self.weights.keys() or not self.corpora:
            raise ValueError(f"A mixture of {list(self.corpora)} has weights for {list(self.weights)}; weigh each.")
        if len(self.corpora) > CYCLE // 16:
            raise ValueError(f"A mixture takes at most {CYCLE // 16} corpora, not {len(self.corpora)}.")


class MixedWindows(Dataset[Batch]):
    """Windows of several corpora, each packed by itself: no window holds documents of two.

    A corpus' windows come evenly, at places drawn within even stretches: whatever stretch of a training is looked at,
    each has its share to a window or two, and every optimizer step is a sample of the whole. Corpora go on over epochs
    of their own, reshuffled, while larger ones are still in their first. Weights are shares of tokens: a corpus whose
    documents leave more of their windows empty has more windows.

    Window i is a pure function of (documents, weights, seed, i), as of `PackedDocuments`.

    Args:
        mixture: the corpora and their weights.
        sequence_length: as of `PackedDocuments`.
        lookahead: as of `PackedDocuments`.
        seed: of the corpora's orders and of the mixture's.
    """

    def __init__(self, mixture: Mixture, sequence_length: int, lookahead: int, seed: int) -> None:
        self.sequence_length = sequence_length
        self.lookahead = lookahead
        self.seed = seed
        self.corpora = {
            # Corpora that happen to be equally large would otherwise be permuted alike.
            name: PackedDocuments(documents, sequence_length, lookahead, seed + number)
            for number, (name, documents) in enumerate(mixture.corpora.items())
        }
        self._windows = list(self.corpora.values())
        tokens = np.array([windows.documents.lengths.sum() / len(windows) for windows in self._windows])
        weights = np.array([mixture.weights[name] for name in self.corpora])
        self._counts = apportioned(weights / tokens, CYCLE)
        self._cycle = -1
        self._owners = self._numbers = np.zeros(0, dtype=np.int64)

    @property
    def packing(self) -> str:
        """What a saved position counts windows of."""
        counts = zip(self.corpora, self._counts.tolist(), strict=True)
        return f"{self._windows[0].packing}; {', '.join(f'{count} {name}' for name, count in counts)}"

    def __getitem__(self, index: int) -> Batch:
        """Window `index`, as of `PackedDocuments`."""
        cycle, place = divmod(index, CYCLE)
        self._enter_cycle(cycle)
        owner = int(self._owners[place])
        return self._windows[owner][cycle * int(self._counts[owner]) + int(self._numbers[place])]

    def mean_targets(self, first: int, n_windows: int) -> torch.Tensor:
        """How many targets of each depth [lookahead] windows `first` and following have on average."""
        begins, ends = self.windows_before(first).tolist(), self.windows_before(first + n_windows).tolist()
        total = torch.zeros(self.lookahead, dtype=torch.float64)
        for windows, begin, end in zip(self._windows, begins, ends, strict=True):
            if end > begin:
                total += (end - begin) * windows.mean_targets(begin, end - begin)
        return total / n_windows

    def windows_before(self, index: int) -> np.ndarray:
        """How many of the windows before `index` each corpus has [corpora]."""
        cycle, place = divmod(index, CYCLE)
        self._enter_cycle(cycle)
        return cycle * self._counts + np.bincount(self._owners[:place], minlength=len(self._windows))

    def _enter_cycle(self, cycle: int) -> None:
        """Draw whose window comes when, and which of the corpus' windows of this cycle it is."""
        if cycle == self._cycle:
            return
        owners = np.repeat(np.arange(len(self._windows)), self._counts)
        numbers = np.concatenate([np.arange(count) for count in self._counts])
        drawn = np.random.default_rng((self.seed, cycle, _MIXING)).random(CYCLE)
        order = np.argsort((numbers + drawn) / self._counts[owners], kind="stable")
        self._owners, self._numbers, self._cycle = owners[order], numbers[order], cycle


def apportioned(shares: np.ndarray, seats: int) -> np.ndarray:
    """Whole numbers that sum to `seats` and stand to one another as the shares [N] do, by largest remainders.

    None is 0: there are far fewer shares than seats.
    """
    quotas = shares / shares.sum() * (seats - len(shares))
    numbers = 1 + np.floor(quotas).astype(np.int64)
    largest = np.argsort(np.floor(quotas) - quotas, kind="stable")
    numbers[largest[: seats - int(numbers.sum())]] += 1
    return numbers
