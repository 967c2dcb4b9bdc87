"""Which recordings each document of a split holds, by hash: the same audio is found again in other corpora."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np

TABLE = "audio_hashes.npy"
_ROWS_AT_ONCE = 2**16


def write_audio_hashes(folder: Path, n_rows: int, rows: Iterable[tuple[int, str]]) -> None:
    """Write the table of a split, uint64 [rows, 2], beside its shards.

    Args:
        folder: of the split.
        n_rows: how many rows there are.
        rows: a document's number, and the SHA-256 of the samples of a recording in it, in hexadecimal; of which 64 bits
            are kept: among 100 million recordings one pair is taken for equal with a probability of 0.03 %.
    """
    table = np.lib.format.open_memmap(folder / TABLE, mode="w+", dtype=np.uint64, shape=(n_rows, 2))
    remaining = iter(rows)
    for first in range(0, n_rows, _ROWS_AT_ONCE):
        some = islice(remaining, _ROWS_AT_ONCE)
        table[first : first + _ROWS_AT_ONCE] = [(document, int(sha256[:16], 16)) for document, sha256 in some]
    table.flush()


def read_audio_hashes(folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """The documents [rows] and hashes [rows] of a split; None where an earlier version prepared it.

    Raises:
        ValueError: the table is damaged.
    """
    path = folder / TABLE
    if not path.exists():
        return None
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
        documents, hashes = table[:, 0], table[:, 1]
    except (EOFError, IndexError, OSError, ValueError) as error:
        raise ValueError(f"{path} is no table of audio hashes ({error}); run prepare-data again.") from error
    return documents.astype(np.int64), hashes
