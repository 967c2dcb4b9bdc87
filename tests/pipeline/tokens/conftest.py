from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.shards import finish_split, shard_path, write_shard
from pipeline.tokens.vocabulary import Vocabulary
from tests.pipeline.tokens.token_documents import SMALL, documents


@pytest.fixture
def make_split(tmp_path: Path) -> Callable[..., TokenDataset]:
    """Write codes, [F, Q] for each document, as a split of the given number of shards, and open it."""

    def make(
        name: str, codes: Sequence[np.ndarray], vocabulary: Vocabulary, documents_per_shard: int = 2
    ) -> TokenDataset:
        written = [vocabulary.document(c) for c in codes]
        n_shards = -(-len(written) // documents_per_shard)
        for number in range(n_shards):
            part = written[number * documents_per_shard : (number + 1) * documents_per_shard]
            write_shard(shard_path(tmp_path / name, number), part, vocabulary)
        finish_split(tmp_path / name, n_shards)
        return TokenDataset.open(tmp_path / name)

    return make


@pytest.fixture
def split(tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    """Three shards of three, no and two documents."""
    contents = documents(5)
    for number, part in enumerate((contents[:3], [], contents[3:])):
        write_shard(shard_path(tmp_path, number), part, SMALL)
    finish_split(tmp_path)
    return tmp_path, contents
