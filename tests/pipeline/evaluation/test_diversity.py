import numpy as np
import pytest
import torch

from pipeline.evaluation.clip import Clip
from pipeline.evaluation.diversity import coarse_codes, compare


def drawn(n: int, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 200, 100) for _ in range(n)]


def test_a_model_that_always_says_the_same_is_told_from_one_that_does_not() -> None:
    found = compare({"codec": drawn(9, 1), "unprompted": drawn(1, 2) * 8})
    assert found["codec"].effective_share > 0.9
    assert found["unprompted"].effective_share == pytest.approx(1 / 8)
    assert found["unprompted"].distinct == pytest.approx(found["codec"].distinct / 8, rel=0.05)


def test_one_clip_differs_from_nothing() -> None:
    assert compare({"codec": drawn(1, 1), "unprompted": drawn(4, 2)}) == {}


def test_a_document_that_was_taken_twice_counts_once() -> None:
    codes = torch.tensor([[1, 2], [1, 3], [2, 2]])
    clips = [Clip("codec", number, np.zeros(8), document=number % 2, codes=codes) for number in range(4)]
    assert [list(found) for found in coarse_codes(clips)] == [[1, 2], [1, 2]]
