import numpy as np
import pytest

from pipeline.audio.containers.mpeg import parse_frame


@pytest.fixture
def mp3(encoded) -> bytes:
    return encoded("MP3")


def frames(content: bytes) -> list[int]:
    starts, position = [], 0
    while (frame := parse_frame(content[position : position + 4])) is not None:
        starts.append(position)
        position += frame.n_bytes
    return starts


def without_count(mp3: bytes) -> bytes:
    """As encoders write it that add no header: the first frame alone tells of the number of frames."""
    return mp3[frames(mp3)[1] :]


@pytest.mark.parametrize(("rate", "seconds"), [(8000, 4), (16000, 4), (22050, 2), (44100, 1), (48000, 1)])
def test_whole_files_need_no_word_at_any_rate(encoded, decode, rate, seconds):
    assert decode(encoded("MP3", seconds, rate=rate)) == (seconds, [], "")


def test_files_one_after_another_are_read_to_their_end(mp3, encoded, decode):
    assert decode(mp3 + encoded("MP3", 1.0)) == (5.0, ["holds 2 streams, one after another"], "")
    joined = mp3 + b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10) + encoded("MP3", 1.0)
    assert decode(joined)[0] == 5.0


def test_a_file_that_was_cut_off_says_how_much_it_holds(mp3, decode):
    seconds, notes, damage = decode(mp3[: len(mp3) // 2])
    assert (notes, damage) == (["its last frame is cut off"], f"holds {seconds:.1f} of 4.0 s")


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("how", ["zeroed", "garbage", "hole"])
def test_nothing_behind_a_gap_is_put_to_what_lies_before(mp3, decode, how, counted):
    mp3 = mp3 if counted else without_count(mp3)
    at = frames(mp3)[len(frames(mp3)) // 2] + 7
    noise = np.random.default_rng(0).bytes(5000)
    torn = {
        "zeroed": mp3[:at] + bytes(1500) + mp3[at + 1500 :],
        "garbage": mp3[:at] + noise + mp3[at:],
        "hole": mp3[:at] + mp3[at + 1000 :],
    }[how]
    seconds, _, damage = decode(torn)
    assert seconds == pytest.approx(2, abs=0.2)
    assert damage.startswith(f"holds {seconds:.1f}{' of 4.0' if counted else ''} s: bytes ")
    assert damage.endswith(" hold no MPEG frame")


def test_a_count_that_is_too_small_is_put_right(mp3, decode):
    at = mp3.index(b"Xing") + 8
    small = mp3[:at] + (20).to_bytes(4, "big") + mp3[at + 4 :]
    seconds, notes, damage = decode(small)
    assert (seconds, damage) == (4.0, "")
    assert notes == ["its header tells of 0.7 s, 4.1 s are there and were read"]


def test_a_stream_without_a_count_is_read_to_its_end(mp3, decode):
    """The decoder would guess 1 s from the first frame's bit rate."""
    seconds, notes, damage = decode(without_count(mp3))
    assert seconds == pytest.approx(len(frames(without_count(mp3))) * 576 / 16000, abs=0.05)
    assert seconds > 4
    assert (notes, damage) == ([], "")


def test_tags_are_no_sound(mp3, decode):
    tag = b"ID3\x04\x00\x00\x00\x00\x00\x7f" + b"\xff\xfb" * 63 + b"\x00"
    ape = b"APETAGEX" + (2000).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(80)
    assert decode(tag + tag + mp3 + ape + b"TAG" + bytes(125)) == (4.0, [], "")
    assert decode(mp3 + b"\x01" * 90) == (4.0, ["90 bytes at its end are no sound"], "")


def test_a_capture_that_begins_inside_a_frame(mp3, decode):
    start = frames(mp3)[30] - 50
    seconds, notes, damage = decode(mp3[start:])
    assert seconds == pytest.approx(3, abs=0.2)
    assert (notes, damage) == (["50 bytes before its first frame are no sound"], "")


@pytest.mark.parametrize("head", ["", "ff", "ffffffff", "fff38000", "fffb00c4", "ffe9a0c4", "fffb9cc4", "fffbf0c4"])
def test_what_is_no_header(head):
    assert parse_frame(bytes.fromhex(head)) is None or head == "fff38000"
