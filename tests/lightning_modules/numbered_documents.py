"""Documents that can be told apart by every token."""

import numpy as np


class NumberedDocuments:
    """Documents whose tokens are all different, so that each can be found again."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = np.array(lengths)
        ends = np.cumsum(self.lengths)
        self.documents = [np.arange(end - length, end) for length, end in zip(lengths, ends, strict=True)]

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.documents[index]
