"""Stretches are what the same samples of the whole are, however a format is sought in."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.audio import stretch as stretches
from pipeline.audio.reading import read_audio
from pipeline.audio.source import Source
from pipeline.audio.survey import Survey, survey
from pipeline.audio.unusable import UnusableRecording

RATE = 16000
# The largest difference: a decoder that starts in the middle rounds otherwise, or has not settled.
FORMATS = {
    ("WAV", "PCM_16"): 0.0, ("WAV", "IMA_ADPCM"): 0.0, ("WAV", "GSM610"): 0.0, ("FLAC", None): 0.0,
    ("OGG", "VORBIS"): 0.0, ("OGG", "OPUS"): 1e-2, ("MP3", None): 1e-6, ("AIFF", None): 0.0,
}  # fmt: skip


def look(source: Source) -> Survey:
    return survey(source, silence_rms=1e-4, max_seconds=3600)


@pytest.fixture
def written(tmp_path: Path, encoded):
    def write(form: str = "WAV", subtype: str | None = None, content: bytes | None = None) -> str:
        path = tmp_path / f"{form}.audio"
        path.write_bytes(encoded(form, subtype=subtype) if content is None else content)
        return str(path)

    return write


@pytest.mark.parametrize(("form", "subtype"), FORMATS)
def test_a_stretch_is_cut_to_the_sample(written, form, subtype):
    path = written(form, subtype)
    whole, rate = read_audio(path)
    for start, seconds in ((0.0, 0.5), (1.23456, 2.0), (3.5, 0.25), (2.0, None)):
        stop = None if seconds is None else round((start + seconds) * rate)
        audio, _ = read_audio(Source(path, start=start, seconds=seconds))
        expected = whole[round(start * rate) : stop]
        assert len(audio) == len(expected)
        np.testing.assert_allclose(audio, expected, atol=FORMATS[form, subtype])


def test_no_more_is_decoded_than_the_stretch(written, monkeypatch):
    path, decoded = written("FLAC"), []
    read = stretches.StretchStream._read

    def count(stream, *arguments, **options):
        for block in read(stream, *arguments, **options):
            decoded.append(len(block))
            yield block

    monkeypatch.setattr(stretches.StretchStream, "_read", count)
    read_audio(Source(path, start=3.0, seconds=0.5))
    # Once to be looked at, once to be read.
    assert sum(decoded) == 2 * RATE / 2


def test_the_container_is_examined_once_for_all_stretches_of_a_file(written, monkeypatch):
    path, examined = written("OGG", "VORBIS"), []
    examine = stretches.examine
    monkeypatch.setattr(stretches, "examine", lambda file, size: examined.append(size) or examine(file, size))
    for start in range(3):
        read_audio(Source(path, start=float(start), seconds=1.0))
    assert len(examined) == 1


@pytest.mark.parametrize(
    ("start", "seconds", "damage"),
    [
        (1.0, 2.0, ""),
        (3.95, 0.1, ""),
        (3.0, 2.0, "holds 1.0 of 2.0 s: its file ends within it"),
    ],
)
def test_a_stretch_that_the_file_does_not_hold_is_damaged(written, start, seconds, damage):
    assert look(Source(written(), start=start, seconds=seconds)).damage == damage


@pytest.mark.parametrize(("form", "subtype"), FORMATS)
def test_a_stretch_behind_the_end_is_refused(written, form, subtype):
    with pytest.raises(UnusableRecording, match=r"begins at 7\.0 s of a file that holds 4\.[01] s"):
        look(Source(written(form, subtype), start=7.0, seconds=1.0))


def test_a_stretch_before_a_fault_is_whole_and_one_across_it_is_not(written, encoded):
    content = bytearray(encoded("OGG", 4.0, "VORBIS"))
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    path = written("OGG", content=bytes(content))
    assert not look(Source(path, start=0.5, seconds=0.5)).damage
    assert "hold no whole Ogg page" in look(Source(path, start=0.5, seconds=3.0)).damage


@pytest.mark.parametrize(
    ("promised", "notes", "damage"),
    [
        (4.0, (), ""),
        (3.96, (), ""),
        (2.0, ("its manifest tells of 2.0 s, 4.0 s are there and were read",), ""),
        (6.0, (), "holds 4.0 of the 6.0 s that its manifest tells of"),
    ],
)
def test_what_is_promised_of_all_of_a_file_is_compared_with_it(written, promised, notes, damage):
    found = look(Source(written(), seconds=promised))
    assert (found.seconds, found.notes, found.damage) == (4.0, notes, damage)
