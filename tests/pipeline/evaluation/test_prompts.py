import numpy as np
import pytest

from pipeline.evaluation.prompts import choose_prompts
from pipeline.tokens.vocabulary import Vocabulary

FRAMES = [3, 10, 4, 12, 5, 20, 5, 9]
LONGER_THAN_FOUR = {1, 3, 4, 5, 6, 7}


def documents_of(test, **changes: object) -> list[int]:
    arguments = {"first": [], "n": 6, "n_frames": 4, "seed": 0} | changes
    return [prompt.document for prompt in choose_prompts(test, **arguments)]


def test_only_utterances_that_go_on_after_the_prompt_are_chosen(random_split) -> None:
    assert set(documents_of(random_split("test", FRAMES))) == LONGER_THAN_FOUR


def test_those_to_be_heard_beside_come_first_as_far_as_they_are_long_enough(random_split) -> None:
    test = random_split("test", FRAMES)
    chosen = documents_of(test, first=[7, 0, 3, 2], n=4)
    assert chosen[:2] == [7, 3]
    assert len(set(chosen)) == 4
    assert set(chosen) <= LONGER_THAN_FOUR


def test_the_seed_decides_on_the_others(random_split) -> None:
    test = random_split("test", FRAMES)
    orders = {tuple(documents_of(test, seed=seed)) for seed in range(5)}
    assert len(orders) > 1
    assert documents_of(test, seed=3) == documents_of(test, seed=3)


def test_a_small_split_gives_its_utterances_again(random_split) -> None:
    chosen = documents_of(random_split("test", [9, 2, 8]), n=5)
    assert chosen[:2] in ([0, 2], [2, 0])
    assert chosen == [*chosen[:2], *chosen[:2], chosen[0]]


def test_first_alone_may_be_enough(random_split) -> None:
    assert documents_of(random_split("test", [9, 8]), first=[1, 0], n=2) == [1, 0]


def test_the_codes_are_those_of_the_document(make_split, vocabulary: Vocabulary) -> None:
    codes = np.random.default_rng(0).integers(0, 16, size=(6, 2))
    test = make_split("test", [codes[:2], codes], vocabulary)
    (prompt,) = choose_prompts(test, first=[], n=1, n_frames=3, seed=0)
    np.testing.assert_array_equal(prompt.codes.numpy(), codes)


def test_a_prompt_longer_than_everything_names_the_setting(random_split) -> None:
    with pytest.raises(ValueError, match=r"test is longer than a prompt of 20 frames; lower evaluate.prompt_seconds"):
        documents_of(random_split("test", FRAMES), n_frames=20)
