"""Token documents on disk: shards that workers write apart, and a split that opens them as one.

A shard is two files. `shard_00000.bin` holds its documents' tokens one after the other, as little-endian unsigned
integers of 16 bits, or of 32 where the vocabulary needs them. `shard_00000.json` says what they are: the format, the
vocabulary, the type, every document's length, and the SHA-256 of the other file. Once all are written, `finish_split`
adds `index.json`, which lists them with the SHA-256 of both files: whoever opens the split knows each byte of it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.plumbing.files import atomic_write, read_json, write_json
from pipeline.tokens.verification import Verification
from pipeline.tokens.vocabulary import Vocabulary

FORMAT_VERSION = 2
INDEX_NAME = "index.json"
REMEDY = "run prepare-data again"


@dataclass(frozen=True)
class ShardSummary:
    """What a split's index says of one shard; the checksums are of its tokens and of its description."""

    name: str
    n_documents: int
    n_tokens: int
    sha256: str
    description_sha256: str


def shard_path(folder: Path | str, number: int) -> Path:
    """Return where a split's shard of that number, from 0 on, is written."""
    return Path(folder) / f"shard_{number:05d}.bin"


def write_shard(path: Path | str, documents: Sequence[np.ndarray], vocabulary: Vocabulary) -> ShardSummary:
    """Write documents, integer tokens [T] each, as the shard `path` (see `shard_path`) and its description.

    Raises:
        ValueError: a document is empty, not one-dimensional integers, or holds a token out of the vocabulary.
    """
    path = Path(path)
    for i, document in enumerate(documents):
        _check_document(f"Document {i} for {path}", document, vocabulary.size)
    dtype = _token_type(vocabulary)
    tokens = np.concatenate([np.zeros(0, dtype), *(document.astype(dtype) for document in documents)])
    data = tokens.tobytes()
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    description = {
        "format": FORMAT_VERSION,
        "vocabulary": asdict(vocabulary),
        "dtype": dtype.str,
        "sha256": hashlib.sha256(data).hexdigest(),
        "lengths": [len(document) for document in documents],
    }
    write_json(path.with_suffix(".json"), description)
    return _Shard.read(path).summary


def read_document(path: Path | str, number: int) -> np.ndarray:
    """One document of a shard, its tokens [T] in the type that they are written in.

    Raises:
        FileNotFoundError, ValueError: naming what is missing, truncated or of another format.
    """
    shard = _Shard.read(Path(path))
    start = int(shard.lengths[:number].sum())
    return np.array(shard.map()[start : start + int(shard.lengths[number])])


def document_lengths(folder: Path | str) -> Iterator[int]:
    """The tokens of each document of a finished split, one shard's after the other's."""
    for number in range(len(_read_versioned(Path(folder) / INDEX_NAME)["shards"])):
        yield from _Shard.read(shard_path(folder, number)).lengths.tolist()


def _check_document(name: str, document: np.ndarray, vocabulary_size: int) -> None:
    if document.ndim != 1 or not np.issubdtype(document.dtype, np.integer) or len(document) == 0:
        raise ValueError(
            f"{name} has type {document.dtype} and shape {list(document.shape)}; give integer tokens of shape [tokens]."
        )
    if document.min() < 0 or document.max() >= vocabulary_size:
        raise ValueError(
            f"{name} has tokens from {document.min()} to {document.max()}, outside its vocabulary of "
            f"{vocabulary_size}; make documents with `Vocabulary.document`."
        )


def _token_type(vocabulary: Vocabulary) -> np.dtype:
    return np.dtype("<u2" if vocabulary.size <= 2**16 else "<u4")


def finish_split(folder: Path | str, n_shards: int | None = None) -> dict[str, Any]:
    """Check a folder's shards against their descriptions, and write and return the index that makes them a split.

    Args:
        folder: where the shards lie.
        n_shards: how many there have to be; None takes those there are.

    Raises:
        ValueError: naming a shard that is missing, truncated, or of another vocabulary; or the split holds no document.
    """
    folder = Path(folder)
    found = {path.stem for path in folder.glob("shard_*")}
    numbers = range(len(found) if n_shards is None else n_shards)
    expected = {shard_path(folder, number).stem for number in numbers}
    if expected != found:
        name = min(expected ^ found)
        problem = "is missing from the split" if name in expected else "does not belong to the split"
        raise ValueError(
            f"{folder / name} {problem} of {len(expected)} shards, numbered from 0; empty the folder and {REMEDY}."
        )
    summaries, vocabulary = [], None
    for number in numbers:
        shard = _Shard.read(shard_path(folder, number))
        vocabulary = vocabulary or shard.vocabulary
        if shard.vocabulary != vocabulary:
            raise ValueError(
                f"{shard.path} has {shard.vocabulary}, other shards {vocabulary}; empty the folder and {REMEDY}."
            )
        summaries.append(shard.summary)
    n_documents = sum(summary.n_documents for summary in summaries)
    if vocabulary is None or n_documents == 0:
        raise ValueError(f"{folder} holds no documents; use more recordings, or a larger share for this split.")
    index = {
        "format": FORMAT_VERSION,
        "vocabulary": asdict(vocabulary),
        "n_documents": n_documents,
        "n_tokens": sum(summary.n_tokens for summary in summaries),
        "shards": [asdict(summary) for summary in summaries],
    }
    write_json(folder / INDEX_NAME, index)
    return index


@dataclass(frozen=True, eq=False)
class _Shard:
    """One shard as its description tells, its data's size checked."""

    path: Path
    vocabulary: Vocabulary
    dtype: np.dtype
    lengths: np.ndarray
    summary: ShardSummary

    @classmethod
    def read(cls, path: Path) -> "_Shard":
        description_path = path.with_suffix(".json")
        description = _read_versioned(description_path)
        try:
            vocabulary = Vocabulary(**description["vocabulary"])
            dtype = _token_type(vocabulary)
            if description["dtype"] != dtype.str:
                raise TypeError(f"dtype {description['dtype']!r} where {dtype.str!r} is due")
            lengths = _checked_lengths(description["lengths"])
            sha256 = str(description["sha256"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{description_path} describes no shard ({error}); {REMEDY}.") from error
        n_tokens = int(lengths.sum())
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; {REMEDY}.")
        size, described = path.stat().st_size, n_tokens * dtype.itemsize
        if size != described:
            raise ValueError(f"{path} has {size} bytes, but its description says {described}; {REMEDY}.")
        own_sha256 = hashlib.sha256(description_path.read_bytes()).hexdigest()
        summary = ShardSummary(path.stem, len(lengths), n_tokens, sha256, own_sha256)
        return cls(path, vocabulary, dtype, lengths, summary)

    def map(self) -> np.ndarray:
        """The tokens [T], memory-mapped read-only."""
        if self.summary.n_tokens == 0:  # which cannot be mapped
            return np.zeros(0, self.dtype)
        tokens = np.memmap(self.path, dtype=self.dtype, mode="r", shape=(self.summary.n_tokens,))
        return tokens.view(np.ndarray)  # of which stretches are taken three times as fast

    def first(self, n_documents: int) -> "_Shard":
        """The same shard without its later documents."""
        lengths = self.lengths[:n_documents]
        return replace(
            self,
            lengths=lengths,
            summary=replace(self.summary, n_documents=len(lengths), n_tokens=int(lengths.sum())),
        )


def _checked_lengths(lengths: Any) -> np.ndarray:
    """The lengths of a shard's documents, int64 [documents].

    Raises:
        ValueError: one of them is no number of tokens.
    """
    if not isinstance(lengths, list):
        raise TypeError("its lengths are no list")
    for document, length in enumerate(lengths):
        # No document is longer than a file can be; bool counts as an integer in Python, and not here.
        if type(length) is not int or not 0 < length < 2**48:
            raise ValueError(f"document {document} has a length of {length!r}")
    return np.array(lengths, dtype=np.int64)


def _read_versioned(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT_VERSION:
        raise ValueError(f"{path} is not of token format {FORMAT_VERSION}; {REMEDY}.")
    return content


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
        self, folder: Path, vocabulary: Vocabulary, shards: Sequence[_Shard], verification: Verification | None = None
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
        index = _read_versioned(index_path)
        try:
            vocabulary = Vocabulary(**index["vocabulary"])
            summaries = [ShardSummary(**entry) for entry in index["shards"]]
            totals = int(index["n_documents"]), int(index["n_tokens"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{index_path} lists no shards ({error}); {REMEDY}.") from error
        shards = [_Shard.read(shard_path(folder, number)) for number in range(len(summaries))]
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
