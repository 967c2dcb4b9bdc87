from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.tokens.shards import TokenDataset, finish_split, shard_path, write_shard
from pipeline.tokens.vocabulary import Vocabulary


@pytest.fixture
def make_split(tmp_path: Path) -> Callable[..., TokenDataset]:
    """Write codes, [F, Q] for each document, as a split of the given number of shards, and open it."""

    def make(
        name: str, codes: Sequence[np.ndarray], vocabulary: Vocabulary, documents_per_shard: int = 2
    ) -> TokenDataset:
        documents = [vocabulary.document(c) for c in codes]
        n_shards = -(-len(documents) // documents_per_shard)
        for number in range(n_shards):
            part = documents[number * documents_per_shard : (number + 1) * documents_per_shard]
            write_shard(shard_path(tmp_path / name, number), part, vocabulary)
        finish_split(tmp_path / name, n_shards)
        return TokenDataset.open(tmp_path / name)

    return make
