import math

import numpy as np
import pytest

from pipeline.tokens.repetition import (
    distinct_share,
    effective_number,
    longest_matches,
    ngrams,
    said_before,
    without_holds,
)


def codes(n: int, seed: int, size: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, size, n)


def longest_by_trying(sequence: np.ndarray, corpus: list[np.ndarray]) -> int:
    """The longest shared run, by looking every one up."""
    longest = 0
    for n in range(1, len(sequence) + 1):
        known = {tuple(run) for document in corpus for run in ngrams(document, n).tolist()}
        if not any(tuple(run) in known for run in ngrams(sequence, n).tolist()):
            return longest
        longest = n
    return longest


def test_a_held_code_counts_once() -> None:
    assert without_holds(np.array([0, 0, 5, 5, 5, 0, 1])).tolist() == [0, 5, 0, 1]
    assert without_holds(np.zeros(0, dtype=int)).tolist() == []


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_match_is_the_one_that_trying_finds(seed: int) -> None:
    corpus = [codes(n, seed + n) for n in (40, 1, 60)]
    sequences = [codes(n, 100 + seed + n) for n in (1, 2, 17, 50)]
    found = longest_matches(sequences, corpus)
    assert [length for length, _ in found] == [longest_by_trying(sequence, corpus) for sequence in sequences]
    for sequence, (length, document) in zip(sequences, found, strict=True):
        assert longest_by_trying(sequence, [corpus[document]]) == length


def test_a_copy_is_found_whole_and_no_match_crosses_documents() -> None:
    corpus = [codes(30, 1), codes(200, 2), np.array([0, 1])]
    across = np.concatenate([corpus[0][-5:], corpus[1][:5]])
    assert longest_matches([corpus[1][50:180], np.array([7, 8])], corpus) == [(130, 1), (0, -1)]
    assert longest_matches([across], [corpus[0], corpus[1]])[0][0] == longest_by_trying(across, corpus[:2]) < 10


def test_what_was_said_before_is_known_from_the_second_time_on() -> None:
    assert said_before(np.array([1, 2, 3, 1, 2, 3, 1]), 3).tolist() == [False, False, False, True, True]
    assert said_before(np.array([1, 2]), 3).tolist() == []


def test_equal_sequences_are_one_in_effect_and_disjoint_ones_as_many_as_they_are() -> None:
    same = [codes(40, 1)] * 5
    disjoint = [codes(40, 1) + 3 * i for i in range(5)]
    assert effective_number(same, 2) == pytest.approx(1)
    assert effective_number(disjoint, 2) == pytest.approx(5)
    assert effective_number(disjoint[:2] * 3, 2) == pytest.approx(2)
    assert math.isnan(effective_number([np.array([1])], 2))


def test_distinct_runs_are_counted_over_all_sequences() -> None:
    assert distinct_share([np.array([1, 2, 3]), np.array([1, 2, 4])], 2) == pytest.approx(3 / 4)
    assert math.isnan(distinct_share([np.array([1])], 2))
