"""Documents in memory, to train on in tests."""

from collections.abc import Sequence

import numpy as np


class ListedDocuments:
    """Documents as a list has them."""

    def __init__(self, documents: Sequence[np.ndarray]) -> None:
        self.documents = documents
        self.lengths = np.array([len(document) for document in documents])

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.documents[index]


def numbered_documents(lengths: Sequence[int]) -> ListedDocuments:
    """Documents whose tokens are all different, so that each can be found again."""
    ends = np.cumsum(lengths)
    return ListedDocuments([np.arange(end - length, end) for length, end in zip(lengths, ends, strict=True)])


def rising_documents(n: int, seed: int) -> ListedDocuments:
    """Documents that count upwards from a random start, over and over from 1 to 39."""
    rng = np.random.default_rng(seed)
    return ListedDocuments([(np.arange(rng.integers(5, 40)) + rng.integers(39)) % 39 + 1 for _ in range(n)])
