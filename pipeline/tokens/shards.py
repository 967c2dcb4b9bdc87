"""Token documents on disk: shards that workers write apart, and the index that makes them a split.

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
    return Shard.read(path).summary


def read_document(path: Path | str, number: int) -> np.ndarray:
    """One document of a shard, its tokens [T] in the type that they are written in.

    Raises:
        FileNotFoundError, ValueError: naming what is missing, truncated or of another format.
    """
    shard = Shard.read(Path(path))
    start = int(shard.lengths[:number].sum())
    return np.array(shard.map()[start : start + int(shard.lengths[number])])


def document_lengths(folder: Path | str) -> Iterator[int]:
    """The tokens of each document of a finished split, one shard's after the other's."""
    for number in range(len(read_versioned(Path(folder) / INDEX_NAME)["shards"])):
        yield from Shard.read(shard_path(folder, number)).lengths.tolist()


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
        shard = Shard.read(shard_path(folder, number))
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
class Shard:
    """One shard as its description tells, its data's size checked.

    Attributes:
        path: of its data.
        vocabulary: what its tokens mean.
        dtype: that they are written in.
        lengths: int64 [documents] the tokens of each document.
        summary: what the index says of it.
    """

    path: Path
    vocabulary: Vocabulary
    dtype: np.dtype
    lengths: np.ndarray
    summary: ShardSummary

    @classmethod
    def read(cls, path: Path) -> "Shard":
        """The shard whose data lie at `path`.

        Raises:
            FileNotFoundError, ValueError: naming what is missing, truncated or of another format.
        """
        description_path = path.with_suffix(".json")
        description = read_versioned(description_path)
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

    def first(self, n_documents: int) -> "Shard":
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


def read_versioned(path: Path) -> dict[str, Any]:
    """A description or an index.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is of another format.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT_VERSION:
        raise ValueError(f"{path} is not of token format {FORMAT_VERSION}; {REMEDY}.")
    return content
