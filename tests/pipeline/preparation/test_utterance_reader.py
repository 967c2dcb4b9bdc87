from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.audio.stretch import open_sound
from pipeline.audio.utterances import Piece, Utterance
from pipeline.preparation import utterance_reader
from pipeline.preparation.utterance_reader import by_recording, cut_spans

RATE = 8000


def cut(name: str, start: float, stop: float) -> Utterance:
    return Utterance(f"{name}@{start}", "s", "train", (Piece(name, start, stop),))


def whole(name: str) -> Utterance:
    return Utterance(name, "s", "train", (Piece(name),))


SCATTERED = [cut("s/b", 2, 3), whole("s/c"), cut("s/a", 1, 2), cut("s/b", 0, 1), whole("s/d"), cut("s/a", 0, 1),
             cut("s/b", 1, 2)]  # fmt: skip


@pytest.fixture
def corpus(make_corpus, make_voice):
    return make_corpus(
        {"s/a": make_voice(2, 1), "s/b": make_voice(3, 2), "s/c": make_voice(1, 3), "s/d": make_voice(1, 4)}
    )


def test_pieces_come_together_where_the_first_of_them_stood() -> None:
    names = [utterance.id for utterance in by_recording(SCATTERED)]
    assert names == ["s/b@0", "s/b@1", "s/b@2", "s/c", "s/a@0", "s/a@1", "s/d"]
    assert by_recording([whole("s/c"), whole("s/a")]) == [whole("s/c"), whole("s/a")]


@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_a_long_recording_is_opened_once_and_gives_what_its_pieces_do(
    corpus, make_reader, sample_rate, monkeypatch
) -> None:
    read = make_reader(corpus, sample_rate, 0.0)
    alone = {utterance.id: read(utterance) for utterance in SCATTERED}
    opened: list[str] = []

    def count(source):
        opened.append(Path(source.path).stem)
        return open_sound(source)

    monkeypatch.setattr(utterance_reader, "open_sound", count)
    ordered = by_recording(SCATTERED)
    for utterance, audio in zip(ordered, read.many(ordered), strict=True):
        np.testing.assert_array_equal(audio, alone[utterance.id])
    assert opened == ["b", "a"]
    # In any other order it is opened as often as it takes.
    assert [len(audio) for audio in read.many(SCATTERED)] == [sample_rate] * len(SCATTERED)


@pytest.mark.parametrize("size", [1, 3, 10, 100])
def test_spans_are_cut_out_of_blocks_of_any_size(size: int) -> None:
    samples = np.arange(50, dtype=np.float32)
    blocks = [samples[start : start + size] for start in range(0, 50, size)]
    spans = [(0, 7), (7, 20), (31, 31), (35, 50)]
    for audio, (first, last) in zip(cut_spans(blocks, spans), spans, strict=True):
        np.testing.assert_array_equal(audio, samples[first:last])
    with pytest.raises(ValueError, match="ends at sample 50, before the end of a piece at 51"):
        list(cut_spans(blocks, [(40, 51)]))


def test_a_recording_that_changed_is_named(corpus, make_reader) -> None:
    read = make_reader(corpus, RATE, 0.0)
    path = Path(corpus.source(corpus.recordings()[0]).path)
    soundfile.write(path, np.zeros(100), RATE)
    for utterance in (whole("s/a"), cut("s/a", 1, 2)):
        with pytest.raises(ValueError, match=r"s/a: has changed since it was inspected.*run prepare-data again"):
            read(utterance)
