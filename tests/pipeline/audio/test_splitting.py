import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audio.configuration import SplitConfig
from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.splitting import assign_splits, find_duplicates


def corpus(n_speakers: int, each: int) -> list[Recording]:
    return [Recording(f"s{s}/{i}.wav", speaker=f"s{s}") for s in range(n_speakers) for i in range(each)]


def test_fractions_of_the_files():
    splits = assign_splits(corpus(10, 40), SplitConfig("file", 0.05, 0.1), seed=0)
    assert Counter(splits.values()) == {"train": 340, "validation": 20, "test": 40}


def test_listing_order_does_not_matter_and_the_seed_does():
    recordings = corpus(5, 20)
    shuffled = random.Random(0).sample(recordings, len(recordings))
    config = SplitConfig("file", 0.1, 0.1)
    assert assign_splits(recordings, config, 3) == assign_splits(shuffled, config, 3)
    assert assign_splits(recordings, config, 3) != assign_splits(recordings, config, 4)


@settings(deadline=None)
@given(st.integers(3, 30), st.floats(0.01, 0.49), st.floats(0.01, 0.49), st.integers(0, 5))
def test_no_speaker_is_in_two_splits_and_no_split_is_empty(n_speakers, validation, test, seed):
    recordings = corpus(n_speakers, 3)
    splits = assign_splits(recordings, SplitConfig("speaker", validation, test), seed)
    assert splits.keys() == {recording.id for recording in recordings}
    assert set(splits.values()) == {"train", "validation", "test"}
    assert len({(recording.speaker, splits[recording.id]) for recording in recordings}) == n_speakers


def test_too_few_groups():
    with pytest.raises(ValueError, match="needs at least 3 speakers.*corpus has 2; set data.split.by=file"):
        assign_splits(corpus(2, 50), SplitConfig("speaker", 0.1, 0.1), 0)
    with pytest.raises(ValueError, match="needs at least 3 files"):
        assign_splits([], SplitConfig("file", 0.1, 0.1), 0)


def test_published_splits_count_only_when_complete():
    published = [
        Recording(f"{i}", speaker=f"{i}", split=split)
        for i, split in enumerate(["test", "train", "train", "validation", "train", "train"])
    ]
    config = SplitConfig("file", 0.1, 0.1)
    assert assign_splits(published, config, 0) == {r.id: r.split for r in published}
    partly = [*published[1:], Recording("0", speaker="0")]
    assert Counter(assign_splits(partly, config, 0).values()) == {"train": 4, "validation": 1, "test": 1}
    with pytest.raises(ValueError, match="leaves validation without"):
        assign_splits([r for r in published if r.split != "validation"], config, 0)
    with pytest.raises(ValueError, match="'dev'"):
        assign_splits([*published, Recording("x", speaker="x", split="dev")], config, 0)


def test_duplicates_point_to_the_first_by_name():
    hashes = {"c": "1", "b": "2", "a": "1", "d": "3", "e": "1"}
    assert find_duplicates(hashes) == {"c": "a", "e": "a"}
    assert find_duplicates(dict(reversed(hashes.items()))) == {"c": "a", "e": "a"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("day", 0.1, 0.1), "data.split.by"),
        (("file", 0, 0.1), "data.split.validation"),
        (("file", 0.1, 1.0), "data.split.test"),
        (("file", 0.5, 0.5), "something to train on"),
    ],
)
def test_configuration_names_the_key(values, message):
    with pytest.raises(ValueError, match=message):
        SplitConfig(*values)
