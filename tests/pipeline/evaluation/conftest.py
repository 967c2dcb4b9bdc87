from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.shards import finish_split, shard_path, write_shard
from pipeline.tokens.vocabulary import Vocabulary


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting processes takes longer than anything here does."""
    monkeypatch.setattr("pipeline.plumbing.worker_processes.os.cpu_count", lambda: 1)


@pytest.fixture
def vocabulary() -> Vocabulary:
    """Fills the forty tokens of the tiny decoder."""
    return Vocabulary(n_codebooks=2, codebook_size=16)


@pytest.fixture
def make_split(tmp_path: Path) -> Callable[..., TokenDataset]:
    """Write codes, [F, Q] for each document, as a split of one shard, and open it."""

    def make(name: str, codes: Sequence[np.ndarray], vocabulary: Vocabulary) -> TokenDataset:
        write_shard(shard_path(tmp_path / name, 0), [vocabulary.document(c) for c in codes], vocabulary)
        finish_split(tmp_path / name, 1)
        return TokenDataset.open(tmp_path / name)

    return make


@pytest.fixture
def random_split(make_split, vocabulary: Vocabulary) -> Callable[..., TokenDataset]:
    """A split of documents of these many frames, whose codes are skewed towards the first."""

    def make(name: str, frames: Sequence[int], seed: int = 0) -> TokenDataset:
        generator = np.random.default_rng(seed)
        return make_split(name, [(16 * generator.random((n, 2)) ** 3).astype(np.int64) for n in frames], vocabulary)

    return make
