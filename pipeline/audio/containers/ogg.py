"""Ogg: pages, their checksums, numbers and granule positions. Source: RFC 3533; Opus in Ogg: RFC 7845."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline.audio.containers.layout import Layout, Segment
from pipeline.audio.containers.tags import skip_trailing_tags

CAPTURE = b"OggS"
HEADER_BYTES = 27
CONTINUED, BEGINNING, END = 1, 2, 4
NO_GRANULE = -1
OPUS_RATE = 48000
# The most samples that a packet can hold: a Vorbis block, 120 ms of Opus.
_LONGEST_PACKET = {"vorbis": 8192, "opus": 5760}
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class _Page:
    start: int
    stop: int
    flags: int
    granule: int
    serial: int
    number: int
    packets: int
    body: bytes


@dataclass(frozen=True)
class _Stretch:
    """Bytes that are no whole page."""

    start: int
    stop: int
    last: bool


@dataclass
class _Link:
    """One logical stream of a chain, as far as its pages have been seen."""

    start: int
    stop: int = 0
    rate: int = 0
    codec: str = ""
    pre_skip: int = 0
    numbers: dict[int, int] = field(default_factory=dict)
    first_granule: int | None = None
    first_packets: int = 0
    last_granule: int = 0
    ended: bool = False
    fault: str = ""
    cut_off: bool = False

    def add(self, page: _Page) -> None:
        """Take a page in; a page that does not follow the one before is a fault, and only its granule counts."""
        due = self.numbers.get(page.serial, page.number)
        if page.number != due and not self.fault:
            self.fault = f"{max(page.number - due, 1)} Ogg pages are missing before byte {page.start}"
        self.numbers[page.serial] = page.number + 1
        if page.flags & BEGINNING:
            self._identify(page.body)
        elif page.granule > 0:
            if self.first_granule is None:
                self.first_granule, self.first_packets = page.granule, page.packets
            self.last_granule = max(self.last_granule, page.granule)
        if not self.fault:
            self.stop = page.stop
            self.ended |= bool(page.flags & END)

    def _identify(self, body: bytes) -> None:
        if body[:7] == b"\x01vorbis":
            self.codec, self.rate = "vorbis", int.from_bytes(body[12:16], "little")
        elif body[:8] == b"OpusHead":
            self.codec, self.rate = "opus", OPUS_RATE
            self.pre_skip = int.from_bytes(body[10:12], "little")

    @property
    def promised_seconds(self) -> float | None:
        """By the last granule position, which counts from the stream's start; None where that was not recorded."""
        if not self.rate or self.first_granule is None or len(self.numbers) != 1 or self.cut_off:
            return None
        if self.first_granule > max(1, self.first_packets) * _LONGEST_PACKET[self.codec] + self.pre_skip:
            return None
        return max(0, self.last_granule - self.pre_skip) / self.rate


def examine_ogg(file: BinaryIO, start: int, stop: int) -> Layout:
    """Every link of a chain from `start` on, up to the first page that is damaged, missing or cut off."""
    links: list[_Link] = []
    notes: list[str] = []
    for page in _pages(file, start, stop):
        if isinstance(page, _Stretch):
            notes += _take_stretch(links, page)
            continue
        begins = page.flags & BEGINNING and (not links or links[-1].first_granule is not None)
        if not links or begins:
            if links and links[-1].fault:
                break
            links.append(_Link(page.start))
        links[-1].add(page)
    if any(not link.ended and not link.fault for link in links):
        notes.append("has no end-of-stream mark: it may have been cut off")
    segments = [Segment(link.start, link.stop, {}, link.promised_seconds, fault=link.fault) for link in links]
    return Layout(tuple(segments), tuple(notes))


def _take_stretch(links: list[_Link], stretch: _Stretch) -> list[str]:
    """Note a stretch that is no page as the last link's fault; the notes that it is worth where it is none."""
    if not links:
        return [f"{stretch.stop - stretch.start} bytes before its first page are no sound"]
    link = links[-1]
    if link.ended and not link.fault and stretch.last:
        return [f"{stretch.stop - stretch.start} bytes at its end are no sound"]
    if not link.fault:
        link.fault = f"bytes {stretch.start} to {stretch.stop} hold no whole Ogg page"
    # What would have told the whole length is gone.
    link.cut_off |= stretch.last
    return []


def _pages(file: BinaryIO, position: int, stop: int) -> "Iterator[_Page | _Stretch]":
    """Yield the pages that are whole, and the stretches between them."""
    while position < stop:
        page = _page(file, position, stop)
        if page is None and skip_trailing_tags(file, position, stop) == stop:
            return
        if page is None:
            after = _next_page(file, position + 1, stop)
            yield _Stretch(position, stop if after is None else after, after is None)
            position = stop if after is None else after
        else:
            yield page
            position = page.stop


def _page(file: BinaryIO, position: int, stop: int) -> _Page | None:
    """The page at a position; None where there is none whose checksum holds."""
    file.seek(position)
    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or header[:4] != CAPTURE or header[4] != 0:
        return None
    lacing = file.read(header[26])
    n_body = sum(lacing)
    after = position + HEADER_BYTES + len(lacing) + n_body
    if len(lacing) < header[26] or after > stop:
        return None
    body = file.read(n_body)
    unsigned = header[:22] + bytes(4) + header[26:]
    if _checksum(unsigned + lacing + body) != int.from_bytes(header[22:26], "little"):
        return None
    return _Page(
        position,
        after,
        header[5],
        int.from_bytes(header[6:14], "little", signed=True),
        int.from_bytes(header[14:18], "little"),
        int.from_bytes(header[18:22], "little"),
        sum(length < 255 for length in lacing),
        body[:64],
    )


def _next_page(file: BinaryIO, position: int, stop: int) -> int | None:
    """The next position with a whole page."""
    tail = b""
    while position < stop:
        file.seek(position)
        block = file.read(min(1 << 16, stop - position))
        if not block:
            return None
        window, base = tail + block, position - len(tail)
        at = window.find(CAPTURE)
        while at >= 0:
            if _page(file, base + at, stop) is not None:
                return base + at
            at = window.find(CAPTURE, at + 1)
        position += len(block)
        tail = window[-3:]
    return None


def _checksum(data: bytes) -> int:
    """The CRC-32 of Ogg, which has zlib's polynomial with the bits of bytes and result in the other order."""
    reflected = zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)
