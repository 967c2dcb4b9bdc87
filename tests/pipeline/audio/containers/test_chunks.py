import re

import pytest

STREAMED = "its header does not tell the length; read to the end"
# Where the size of the sound stands: the mark before it, the bytes between, the bytes it has.
SIZES = {
    "WAV": (b"data", 4, 4),
    "AIFF": (b"SSND", 4, 4),
    "AU": (b".snd", 8, 4),
    "CAF": (b"data", 4, 8),
    "RF64": (b"ds64", 16, 8),
    "W64": (b"data", 16, 8),
}


def with_size(content: bytes, form: str, size: bytes) -> bytes:
    mark, offset, width = SIZES[form]
    at = content.index(mark) + offset
    return content[:at] + size * (width // len(size)) + content[at + width :]


@pytest.mark.parametrize("form", [*SIZES, "WAVEX"])
def test_whole_files_need_no_word(encoded, decode, form):
    assert decode(encoded(form)) == (4.0, [], "")


@pytest.mark.parametrize("form", SIZES)
@pytest.mark.parametrize("size", [b"\x00", b"\xff"], ids=["zero", "ones"])
def test_a_length_that_was_not_known_is_read_to_the_end(encoded, decode, form, size):
    assert decode(with_size(encoded(form), form, size)) == (4.0, [STREAMED], "")


@pytest.mark.parametrize("form", SIZES)
def test_a_file_that_was_cut_off_says_how_much_it_holds(encoded, decode, form):
    content = encoded(form)
    seconds, _, damage = decode(content[: len(content) // 2])
    assert seconds == pytest.approx(2, abs=0.1)
    assert damage == f"holds {seconds:.1f} of 4.0 s"


@pytest.mark.parametrize("form", SIZES)
def test_files_one_after_another_are_read_to_their_end(encoded, decode, form):
    assert decode(encoded(form) + encoded(form, 1.0)) == (5.0, ["holds 2 streams, one after another"], "")


def test_a_stream_of_another_kind_ends_it(encoded, decode):
    seconds, _, damage = decode(encoded("WAV") + encoded("WAV", 1.0, rate=8000))
    assert (seconds, damage) == (4.0, "holds 4.0 s, then a stream of another kind (8000 Hz, 1 channels)")


def test_chunks_and_tags_after_the_sound_are_none(encoded, decode):
    chunk = b"LIST\x06\x00\x00\x00INFO\x00\x00"
    assert decode(encoded("WAV") + chunk + b"TAG" + bytes(125)) == (4.0, [], "")
    assert decode(encoded("WAV") + b"\x07" * 90) == (4.0, ["90 bytes after its sound belong to nothing"], "")


def test_a_few_samples_less_are_worth_a_note(encoded, decode):
    assert decode(encoded("WAV")[:-100]) == (4.0 - 50 / 16000, ["holds 3.997 of 4.000 s"], "")


def test_sound_without_samples_is_no_stream(encoded, decode):
    assert decode(encoded("WAV", 0.0)) == (0.0, [], "")
    with_list = encoded("WAV", 0.0) + b"LIST\x06\x00\x00\x00INFO\x00\x00"
    assert decode(with_list) == (0.0, [], "")


@pytest.mark.parametrize("subtype", ["ULAW", "IMA_ADPCM", "PCM_U8", "PCM_24", "FLOAT"])
def test_other_encodings_are_compared_alike(encoded, decode, subtype):
    content = encoded("WAV", subtype=subtype)
    seconds, notes, damage = decode(content)
    assert (seconds, notes, damage) == (pytest.approx(4, abs=0.01), [], "")
    assert re.match(r"holds 2\.0 of 4\.[01] s", decode(content[: len(content) // 2])[2])
