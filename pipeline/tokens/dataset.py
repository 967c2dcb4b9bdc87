"""A split of token documents, whose shards are opened as one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.tokens.shards import INDEX_NAME, REMEDY, Shard, ShardSummary, read_versioned, shard_path
from pipeline.tokens.verification import Verification
from pipeline.tokens.vocabulary import Vocabulary


class TokenDataset:
    """The documents of one split, memory-mapped: `dataset[i]` is document i, int64 tokens [T].

    Files are mapped when first read, once in each process that the dataset is pickled to. They are compared with their
    checksums when the dataset is opened; where that takes a while it goes on in the background, and whatever is asked
    of the dataset after a changed byte was met raises.

    Attributes:
        folder: where the split lies.
        vocabulary: what its tokens mean.
        lengths: int64 [documents] the tokens of each document.
    """

    def __init__(
        self, folder: Path, vocabulary: Vocabulary, shards: Sequence[Shard], verification: Verification | None = None
    ) -> None:
        self.folder = folder
        self.vocabulary = vocabulary
        self.lengths = np.concatenate([shard.lengths for shard in shards])
        self._shards = list(shards)
        self._first_documents = np.cumsum([0] + [len(shard.lengths) for shard in shards])
        self._starts = np.concatenate([np.cumsum(shard.lengths) - shard.lengths for shard in shards])
        self._maps: dict[int, np.ndarray] = {}
        self._verification = verification

    @classmethod
    def open(cls, folder: Path | str) -> "TokenDataset":
        """Open the split that `finish_split` completed.

        Raises:
            FileNotFoundError: naming a file that does not exist.
            ValueError: naming a file that is truncated, changed, of another format, or not the one the index lists.
        """
        folder = Path(folder)
        index_path = folder / INDEX_NAME
        index = read_versioned(index_path)
        try:
            vocabulary = Vocabulary(**index["vocabulary"])
            summaries = [ShardSummary(**entry) for entry in index["shards"]]
            totals = int(index["n_documents"]), int(index["n_tokens"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{index_path} lists no shards ({error}); {REMEDY}.") from error
        shards = [Shard.read(shard_path(folder, number)) for number in range(len(summaries))]
        for summary, shard in zip(summaries, shards, strict=True):
            if shard.summary != summary or shard.vocabulary != vocabulary:
                raise ValueError(f"{shard.path} is not the shard that {index_path} lists; {REMEDY}.")
        if totals != (sum(s.n_documents for s in summaries), sum(s.n_tokens for s in summaries)):
            raise ValueError(f"{index_path} counts other documents or tokens than its shards have; {REMEDY}.")
        if not any(summary.n_documents for summary in summaries):
            raise ValueError(f"{index_path} lists no documents; {REMEDY}.")
        verification = Verification({shard.path: shard.summary.sha256 for shard in shards}, REMEDY)
        return cls(folder, vocabulary, shards, verification)

    @property
    def n_tokens(self) -> int:
        """All tokens, BOS and EOS among them."""
        return int(self.lengths.sum())

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> np.ndarray:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.folder} has {len(self)} documents, and no document {index}.")
        index %= len(self)
        shard = int(np.searchsorted(self._first_documents, index, side="right")) - 1
        start = self._starts[index]
        return self._read(shard, start, start + self.lengths[index])

    def chunks(self, n_tokens: int) -> Iterator[np.ndarray]:
        """Yield all documents end to end, int64, in pieces of at most `n_tokens` tokens."""
        for shard in range(len(self._shards)):
            length = len(self._map(shard))
            for start in range(0, length, n_tokens):
                yield self._read(shard, start, min(start + n_tokens, length))

    def excerpt(self, n_tokens: int) -> "TokenDataset":
        """The first documents, until they hold `n_tokens` tokens; all of them where there are no more."""
        n_documents = min(len(self), 1 + int(np.searchsorted(np.cumsum(self.lengths), n_tokens)))
        starts = self._first_documents[:-1]
        shards = [
            shard.first(n_documents - int(start))
            for start, shard in zip(starts, self._shards, strict=True)
            if start < n_documents
        ]
        return TokenDataset(self.folder, self.vocabulary, shards, self._verification)

    def verify(self) -> None:
        """Wait until everything has been read and compared with its checksum.

        Raises:
            ValueError: naming a file whose content has changed.
        """
        if self._verification is not None:
            self._verification.finish()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}, "_verification": None}

    def _read(self, shard: int, start: int, end: int) -> np.ndarray:
        """The shard's tokens from `start` to `end`, int64, every one of them in the vocabulary."""
        if self._verification is not None:
            self._verification.check()
        tokens = np.array(self._map(shard)[start:end], dtype=np.int64)
        if len(tokens) and tokens.max() >= self.vocabulary.size:
            path = self._shards[shard].path
            raise ValueError(
                f"{path} holds the token {tokens.max()}, outside its vocabulary of {self.vocabulary.size}; {REMEDY}."
            )
        return tokens

    def _map(self, shard: int) -> np.ndarray:
        if shard not in self._maps:
            self._maps[shard] = self._shards[shard].map()
        return self._maps[shard]
