"""Titles and pictures that taggers put before, between and after the sound."""

from typing import BinaryIO

ID3V1_BYTES = 128


def skip_id3(file: BinaryIO, start: int, stop: int) -> int:
    """The byte after the ID3v2 tags that begin at `start`; `start` itself where there is none."""
    while True:
        file.seek(start)
        header = file.read(10)
        if len(header) < 10 or header[:3] != b"ID3" or any(byte > 127 for byte in header[6:]):
            return start
        size = header[6] << 21 | header[7] << 14 | header[8] << 7 | header[9]
        after = start + 10 + size + (10 if header[5] & 0x10 else 0)
        if after > stop:
            return start
        start = after


def skip_trailing_tags(file: BinaryIO, start: int, stop: int) -> int:
    """The byte after the tags (ID3v1, ID3v2, APE, Lyrics3) and the zeros that begin at `start`."""
    while start < stop:
        file.seek(start)
        head = file.read(32)
        if head[:3] == b"TAG" and stop - start >= ID3V1_BYTES:
            after = start + ID3V1_BYTES
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            after = start + 32 + int.from_bytes(head[12:16], "little")
        elif head[:11] == b"LYRICSBEGIN":
            after = _after_text(file, start, stop, b"LYRICS200")
        elif head[:3] == b"ID3":
            after = skip_id3(file, start, stop)
        elif not any(head):
            after = _after_zeros(file, start, stop)
        else:
            break
        if not start < after <= stop:
            break
        start = after
    return start


def _after_text(file: BinaryIO, start: int, stop: int, text: bytes) -> int:
    file.seek(start)
    found = file.read(min(stop - start, 1 << 16)).find(text)
    return start if found < 0 else start + found + len(text)


def _after_zeros(file: BinaryIO, start: int, stop: int) -> int:
    """The end of a run of zeros, where it reaches the end of the file; zeros inside the sound are no padding."""
    file.seek(start)
    position = start
    while position < stop:
        block = file.read(min(1 << 16, stop - position))
        if not block or any(block):
            return start
        position += len(block)
    return position
