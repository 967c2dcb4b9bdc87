"""FLAC: what STREAMINFO tells of the samples. Sources: RFC 9639, sections 8.1 and 8.2."""

from typing import BinaryIO

from pipeline.audio.containers.layout import Layout, Segment

# The marker, and the header of a STREAMINFO of 34 bytes, the last metadata block or not.
MARKERS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")
_TOTAL_BITS = 36


def examine_flac(file: BinaryIO, start: int, stop: int) -> Layout:
    """Every stream from `start` on, each with the length and the digest that its STREAMINFO announces."""
    starts = [start, *_markers(file, start + 8, stop)]
    segments, notes = [], []
    for first, last in zip(starts, [*starts[1:], stop], strict=True):
        file.seek(first)
        head = file.read(42)
        if len(head) < 42 or head[:8] not in MARKERS:
            return Layout(())
        packed = int.from_bytes(head[18:26], "big")
        total = packed & ((1 << _TOTAL_BITS) - 1)
        rate, bits = packed >> 44, (packed >> _TOTAL_BITS & 0x1F) + 1
        if not total:
            notes.append("its header does not tell the length; read to the end")
        # With no total, the decoder goes on for as long as there are frames.
        unknown = (packed - total).to_bytes(8, "big")
        promise = total / rate if total and rate else None
        md5 = head[26:42] if any(head[26:42]) else b""
        segments.append(Segment(first, last, {first + 18: unknown}, promise, md5=md5, sample_bits=bits))
    return Layout(tuple(segments), tuple(notes))


def _markers(file: BinaryIO, start: int, stop: int) -> list[int]:
    """Where further streams begin: players that join files put them one after another."""
    found, block_bytes, overlap = [], 1 << 20, len(MARKERS[0]) - 1
    file.seek(start)
    position, tail = start, b""
    while position < stop and (block := file.read(min(block_bytes, stop - position))):
        window = tail + block
        for marker in MARKERS:
            at = window.find(marker)
            while at >= 0:
                offset = position - len(tail) + at
                if _plausible(window[at + 8 : at + 26]):
                    found.append(offset)
                at = window.find(marker, at + 1)
        position += len(block)
        tail = window[-overlap:]
    return sorted(found)


def _plausible(head: bytes) -> bool:
    """Whether block sizes and a sample rate follow, as far as the bytes are at hand."""
    if len(head) < 18:
        return True
    smallest, largest = int.from_bytes(head[:2], "big"), int.from_bytes(head[2:4], "big")
    return 16 <= smallest <= largest and int.from_bytes(head[10:13], "big") >> 4 > 0
