"""Token documents of few tokens, and what it is for two splits to be the same."""

import numpy as np

from pipeline.tokens.vocabulary import Vocabulary

SMALL = Vocabulary(n_codebooks=2, codebook_size=4)
WIDE = Vocabulary(n_codebooks=8, codebook_size=16384)


def documents(n, seed=0, vocabulary=SMALL):
    generator = np.random.default_rng(seed)
    shapes = [(int(frames), vocabulary.n_codebooks) for frames in generator.integers(0, 9, size=n)]
    return [vocabulary.document(generator.integers(0, vocabulary.codebook_size, size=shape)) for shape in shapes]


def assert_same_documents(dataset, contents):
    assert len(dataset) == len(contents)
    for i, content in enumerate(contents):
        assert dataset[i].dtype == np.int64
        np.testing.assert_array_equal(dataset[i], content)
    np.testing.assert_array_equal(dataset.lengths, [len(content) for content in contents])
