import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audio.configuration import UtteranceConfig
from pipeline.audio.utterances import Piece, Utterance, assemble, lay_out, utterance_name

WHOLE = UtteranceConfig(min_seconds=0.3, max_seconds=20.0, join_seconds=None, gap_seconds=0.06)
JOINED = UtteranceConfig(min_seconds=0.3, max_seconds=20.0, join_seconds=4.0, gap_seconds=0.06)


def plan(durations, config, seed=0):
    pieces = lay_out(sorted(durations.items()), config, f"{seed}")
    return [Utterance(utterance_name(group), "ann", "train", group) for group in pieces]


def seconds(utterance, durations, config):
    lengths = [durations[p.recording] if p.start is None else p.stop - p.start for p in utterance.pieces]
    return sum(lengths) + config.gap_seconds * (len(lengths) - 1)


def test_recordings_stay_whole():
    utterances = plan({"a": 2.0, "b": 20.0, "c": 0.2}, WHOLE)
    assert {(u.id, u.pieces) for u in utterances} == {("a", (Piece("a"),)), ("b", (Piece("b"),))}


def test_long_recordings_are_cut_into_equal_pieces():
    pieces = sorted((u.pieces[0].start, u.pieces[0].stop) for u in plan({"a": 50.0}, WHOLE))
    np.testing.assert_allclose(pieces, [(0, 50 / 3), (50 / 3, 100 / 3), (100 / 3, 50)])
    assert len({u.id for u in plan({"a": 50.0}, WHOLE)}) == 3


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.15, 9.0), min_size=1, max_size=60), st.integers(0, 3))
def test_joining_uses_each_recording_once(lengths, seed):
    durations = {f"{i:02d}": length for i, length in enumerate(lengths)}
    utterances = plan(durations, JOINED, seed)
    used = [piece.recording for utterance in utterances for piece in utterance.pieces]
    assert len(used) == len(set(used))
    assert len({utterance.id for utterance in utterances}) == len(utterances)
    for utterance in utterances:
        assert 0.3 <= seconds(utterance, durations, JOINED) <= 9.0 + 0.5
    # Only a lone scrap, with no short recording to join, may be left out.
    for name in durations.keys() - set(used):
        assert durations[name] < 0.3
        assert sum(length < 4.0 for length in durations.values()) == 1


def test_joined_digits_reach_the_length_and_mix():
    durations = {f"{digit}_{take}": 0.45 for digit in range(10) for take in range(20)}
    utterances = plan(durations, JOINED)
    lengths = [seconds(utterance, durations, JOINED) for utterance in utterances]
    assert max(lengths) <= 4.0
    assert np.median(lengths) > 3.5
    assert np.mean([len({piece.recording[0] for piece in utterance.pieces}) for utterance in utterances]) > 3


def test_the_seed_decides_what_is_joined_with_what():
    durations = {f"{i}": 0.5 for i in range(50)}
    assert plan(durations, JOINED, 1) == plan(durations, JOINED, 1)
    assert plan(durations, JOINED, 1) != plan(durations, JOINED, 2)


def test_assemble_joins_with_silence():
    audio = {"a": np.arange(1, 101, dtype=np.float32), "b": -np.ones(50, np.float32)}
    pieces = (Piece("a"), Piece("b"))
    joined, rate = assemble(Utterance("x", "ann", "train", pieces), lambda piece: (audio[piece.recording], 100), 0.1)
    assert (rate, joined.dtype) == (100, np.float32)
    np.testing.assert_array_equal(joined, np.concatenate([np.arange(1, 101), np.zeros(10), -np.ones(50)]))


def test_mixed_sample_rates_take_the_first():
    sources = {"a": (np.ones(800, np.float32), 800), "b": (np.ones(1600, np.float32), 1600)}
    utterance = Utterance("x", "ann", "train", (Piece("a"), Piece("b")))
    joined, rate = assemble(utterance, lambda piece: sources[piece.recording], 0.0)
    assert (rate, len(joined)) == (800, 1600)


def test_short_recordings_are_of_use_only_when_joined():
    assert WHOLE.min_recording_seconds == 0.3
    assert JOINED.min_recording_seconds == 0.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0, 20, None, 0.1), "min_seconds must be positive"),
        ((11.0, 20, None, 0.1), "at most half"),
        ((0.3, 20, 30, 0.1), "join_seconds must lie between"),
        ((0.3, 20, None, -0.1), "data.utterances.gap_seconds"),
        ((0.3, "20", None, 0.1), "data.utterances.max_seconds"),
    ],
)
def test_configuration_names_the_key(values, message):
    with pytest.raises(ValueError, match=message):
        UtteranceConfig(*values)
