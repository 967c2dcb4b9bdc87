"""What windows are packed from."""

from typing import Protocol

import numpy as np


class Documents(Protocol):
    """Random access to documents of token ids."""

    lengths: np.ndarray

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...


class ChosenDocuments:
    """Some of many documents, in their order.

    Args:
        documents: the documents.
        chosen: which of them, bool [documents].
    """

    def __init__(self, documents: Documents, chosen: np.ndarray) -> None:
        self.documents = documents
        self.numbers = np.flatnonzero(chosen)
        self.lengths = documents.lengths[self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.documents[int(self.numbers[index])]


class CappedDocuments:
    """Documents of which only the beginning counts, where they are longer than a limit.

    Args:
        documents: the documents.
        limit: tokens of each that are read at most.
    """

    def __init__(self, documents: Documents, limit: int) -> None:
        self.documents = documents
        self.limit = limit
        self.lengths = np.minimum(documents.lengths, limit)

    @property
    def n_capped(self) -> int:
        """Documents that are longer than the limit."""
        return int((self.documents.lengths > self.limit).sum())

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.documents[index][: self.limit]
