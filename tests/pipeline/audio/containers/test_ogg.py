import pytest


@pytest.fixture(params=["VORBIS", "OPUS"])
def ogg(request, encoded) -> bytes:
    return encoded("OGG", 8.0, request.param)


def pages(content: bytes) -> list[int]:
    starts, position = [], 0
    while position < len(content):
        starts.append(position)
        lacing = content[position + 27 : position + 27 + content[position + 26]]
        position += 27 + len(lacing) + sum(lacing)
    return starts


def test_whole_files_need_no_word(ogg, decode):
    assert decode(ogg) == (8.0, [], "")


def test_a_chain_is_read_to_its_end(ogg, encoded, decode):
    assert decode(ogg + encoded("OGG", 1.0, "OPUS")) == (9.0, ["holds 2 streams, one after another"], "")
    assert decode(ogg * 3)[0] == 24.0


def damaged(ogg: bytes, how: str) -> bytes:
    starts = pages(ogg)
    at, after = starts[-2], starts[-1]
    return {
        "zeroed": ogg[: at + 50] + bytes(200) + ogg[at + 250 :],
        "flipped": ogg[: at + 100] + bytes([ogg[at + 100] ^ 1]) + ogg[at + 101 :],
        "garbage": ogg[:at] + b"garbage" * 100 + ogg[at:],
        "hole": ogg[: at + 100] + ogg[at + 300 :],
        "page missing": ogg[:at] + ogg[after:],
    }[how]


@pytest.mark.parametrize("how", ["zeroed", "flipped", "garbage", "hole", "page missing"])
def test_nothing_behind_a_gap_is_put_to_what_lies_before(ogg, decode, how):
    seconds, _, damage = decode(damaged(ogg, how))
    assert 0 < seconds < 8
    assert damage.startswith(f"holds {seconds:.1f} of 8.0 s: ")
    assert ("1 Ogg pages are missing" if how == "page missing" else "hold no whole Ogg page") in damage


def test_a_file_that_was_cut_off_is_damaged_or_said_to_be_open(ogg, decode):
    last = pages(ogg)[-1]
    seconds, notes, damage = decode(ogg[: last + 100])
    assert (notes, damage) == ([], f"holds {seconds:.1f} s: bytes {last} to {last + 100} hold no whole Ogg page")
    assert decode(ogg[:last]) == (seconds, ["has no end-of-stream mark: it may have been cut off"], "")


def test_what_follows_the_end_is_no_damage(ogg, decode):
    assert decode(ogg + b"TAG" + bytes(125)) == (8.0, [], "")
    assert decode(ogg + b"\x01" * 90) == (8.0, ["90 bytes at its end are no sound"], "")
