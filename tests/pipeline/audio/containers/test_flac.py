import pytest

TOTAL = slice(18, 26)


@pytest.fixture
def flac(encoded) -> bytes:
    return encoded("FLAC")


def with_total(flac: bytes, total: int) -> bytes:
    packed = int.from_bytes(flac[TOTAL], "big") >> 36 << 36 | total
    return flac[: TOTAL.start] + packed.to_bytes(8, "big") + flac[TOTAL.stop :]


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_whole_files_are_what_was_encoded(encoded, decode, subtype):
    assert decode(encoded("FLAC", subtype=subtype)) == (4.0, [], "")


def test_a_length_that_was_not_known_or_is_too_small_is_read_to_the_end(flac, decode):
    assert decode(with_total(flac, 0)) == (4.0, ["its header does not tell the length; read to the end"], "")
    assert decode(with_total(flac, 16000)) == (4.0, ["its header tells of 1.0 s, 4.0 s are there and were read"], "")
    assert decode(with_total(flac, 128000)) == (4.0, [], "holds 4.0 of 8.0 s")


def test_files_one_after_another_are_read_to_their_end(flac, encoded, decode):
    assert decode(flac + encoded("FLAC", 1.0)) == (5.0, ["holds 2 streams, one after another"], "")


@pytest.mark.parametrize("how", ["cut off", "zeroed", "flipped", "garbage", "hole"])
def test_nothing_behind_a_gap_is_put_to_what_lies_before(flac, decode, how):
    at = len(flac) // 2
    torn = {
        "cut off": flac[:at],
        "zeroed": flac[:at] + bytes(4096) + flac[at + 4096 :],
        "flipped": flac[:at] + bytes([flac[at] ^ 0x55]) + flac[at + 1 :],
        "garbage": flac[:at] + b"garbage" * 100 + flac[at:],
        "hole": flac[:at] + flac[at + 4096 :],
    }[how]
    seconds, _, damage = decode(torn)
    assert 1 < seconds < 2.1
    assert damage.startswith(f"holds {seconds:.1f} of 4.0 s: ")


def test_samples_that_are_not_those_that_were_encoded(flac, decode):
    other = flac[:26] + bytes(15) + b"\x01" + flac[42:]
    assert decode(other) == (4.0, [], "holds 4.000 of 4.000 s, but not the samples that were encoded (MD5)")
    unset = flac[:26] + bytes(16) + flac[42:]
    assert decode(unset) == (4.0, [], "")


def test_what_follows_the_end_is_no_damage(flac, decode):
    assert decode(flac + b"TAG" + bytes(125)) == (4.0, ["what follows its sound cannot be decoded"], "")
