"""Containers made of chunks: WAV (RIFF, RIFX, RF64, BW64), Wave64, AIFF and CAF; and AU, which is one.

Sources: Multimedia Programming Interface 1.0 (RIFF), EBU Tech 3306 (RF64), Sony Wave64, Audio Interchange File Format
1.3, Apple Core Audio Format 1.0, Sun's `audio.h`.
"""

from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

from pipeline.audio.containers.layout import Layout, Segment
from pipeline.audio.containers.tags import skip_trailing_tags

# Programs that write a WAV file to a pipe cannot know its length, and announce one near 2 or 4 GiB.
STREAMED_LENGTH = 0x7F000000
UNKNOWN_32, UNKNOWN_64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
_UNKNOWN_NOTE = "its header does not tell the length; read to the end"
_FILE_NAMES = (b"RIFF", b"RF64", b"BW64", b"RIFX", b"FORM", b"caff", b"riff")
# The 64-bit size of the sound, within RF64's chunk `ds64`.
_DS64_DATA_SIZE = 8
_W64_RIFF = bytes.fromhex("726966662E91CF11A5D628DB04C10000")
_W64_TAIL = bytes.fromhex("F3ACD3118CD100C04F8EDB8A")


@dataclass(frozen=True)
class _Form:
    """How a container lays its chunks out.

    Attributes:
        first: the first chunk, from the start of the file.
        sound: the name of the chunk with the sound.
        order: of the bytes of a size.
        name_bytes: the length of a name.
        size_bytes: the length of a size.
        counts_header: whether a chunk's size includes its own name and size.
        alignment: chunks begin at multiples of it.
    """

    first: int
    sound: bytes
    order: Literal["little", "big"] = "little"
    name_bytes: int = 4
    size_bytes: int = 4
    counts_header: bool = False
    alignment: int = 2

    @property
    def header_bytes(self) -> int:
        return self.name_bytes + self.size_bytes


@dataclass(frozen=True)
class _Chunk:
    """A chunk: where its content starts, and where its size stands, and what that says."""

    name: bytes
    content: int
    size_offset: int
    size: int


def is_chunked(head: bytes) -> bool:
    """Whether one of these containers begins with these bytes."""
    return _form(head) is not None or head[:4] in (b".snd", b"dns.")


def examine_chunks(file: BinaryIO, start: int, stop: int) -> Layout:
    """Every file that lies one after another from `start` on: its sound, as announced and as far as it is there."""
    segments: list[Segment] = []
    notes: list[str] = []
    position = start
    while position < stop:
        file.seek(position)
        head = file.read(40)
        form = _form(head)
        if form is not None:
            segment = _examine_form(file, form, position, stop)
        elif head[:4] in (b".snd", b"dns."):
            segment = _examine_au(head, position, stop)
        else:
            break
        if segment is None:
            break
        segments.append(segment)
        position = segment.stop
    if segments and (rest := stop - skip_trailing_tags(file, position, stop)) > 0:
        notes.append(f"{rest} bytes after its sound belong to nothing")
    if any(segment.patches and segment.held == 1.0 for segment in segments):
        notes.append(_UNKNOWN_NOTE)
    return Layout(tuple(segments), tuple(notes))


def _form(head: bytes) -> _Form | None:
    name, kind = head[:4], head[8:12]
    if name in (b"RIFF", b"RF64", b"BW64") and kind == b"WAVE":
        return _Form(12, b"data")
    if name == b"RIFX" and kind == b"WAVE":
        return _Form(12, b"data", "big")
    if name == b"FORM" and kind in (b"AIFF", b"AIFC"):
        return _Form(12, b"SSND", "big")
    if name == b"caff":
        return _Form(8, b"data", "big", size_bytes=8, alignment=1)
    if head[:16] == _W64_RIFF:
        return _Form(40, b"data" + _W64_TAIL, name_bytes=16, size_bytes=8, counts_header=True, alignment=8)
    return None


def _examine_form(file: BinaryIO, form: _Form, start: int, stop: int) -> Segment | None:
    """The stream of one file, up to where the next may begin; None where it has no chunk of sound."""
    segment, wide = None, None
    position = start + form.first
    while (chunk := _chunk(file, form, position, stop)) is not None:
        if chunk.name == b"ds64":
            file.seek(chunk.content + _DS64_DATA_SIZE)
            wide = _Chunk(b"", 0, chunk.content + _DS64_DATA_SIZE, int.from_bytes(file.read(8), "little"))
        if chunk.name == form.sound and segment is None:
            is_wide = wide is not None and chunk.size == UNKNOWN_32
            announced = replace(chunk, size_offset=wide.size_offset, size=wide.size) if wide and is_wide else chunk
            segment = _sound(file, form, announced, 8 if is_wide else form.size_bytes, start, stop)
            position = segment.stop
        elif chunk.content + chunk.size > stop:
            break
        else:
            position = chunk.content + chunk.size
        # The last chunk may lack its padding.
        position = min(stop, position + (start - position) % form.alignment)
    return segment and replace(segment, stop=position)


def _chunk(file: BinaryIO, form: _Form, position: int, stop: int) -> _Chunk | None:
    """The chunk at a position; None where there is none, or another file begins."""
    file.seek(position)
    header = file.read(form.name_bytes + form.size_bytes)
    name = header[: form.name_bytes]
    printable = all(32 <= byte < 127 for byte in name[:4])
    if position + len(header) > stop or len(header) < form.name_bytes + form.size_bytes or not printable:
        return None
    if name[:4] in _FILE_NAMES:
        return None
    size = int.from_bytes(header[form.name_bytes :], form.order)
    if form.counts_header and size != UNKNOWN_64:
        size = max(0, size - len(header))
    return _Chunk(name, position + len(header), position + form.name_bytes, size)


def _sound(file: BinaryIO, form: _Form, chunk: _Chunk, width: int, start: int, stop: int) -> Segment:
    """The stream of a chunk of sound, up to the chunk's end; its size set right where it is wrong."""
    present = stop - chunk.content
    unknown = chunk.size == (UNKNOWN_32 if width == 4 else UNKNOWN_64)
    unknown |= chunk.size == 0 and not _only_chunks(file, form, chunk.content, stop)
    if form.sound == b"data" and width == 4:
        unknown |= present < chunk.size and chunk.size >= STREAMED_LENGTH
    if not unknown and chunk.size <= present:
        return Segment(start, chunk.content + chunk.size, decoder_knows=True)
    counted = present + (form.name_bytes + form.size_bytes if form.counts_header else 0)
    size = min(counted, UNKNOWN_32) if width == 4 else counted
    held = 1.0 if unknown else present / chunk.size
    return Segment(start, stop, {chunk.size_offset: size.to_bytes(width, form.order)}, decoder_knows=True, held=held)


def _only_chunks(file: BinaryIO, form: _Form, position: int, stop: int) -> bool:
    """Whether chunks, and nothing else, fill the file from a position on."""
    while position < stop and (chunk := _chunk(file, form, position, stop)) is not None:
        position = chunk.content + chunk.size
        position = stop if position == stop else position + position % form.alignment
    return position == stop


def _examine_au(head: bytes, start: int, stop: int) -> Segment | None:
    """AU: a header with the size of the sound, and the sound."""
    order: Literal["little", "big"] = "big" if head[:4] == b".snd" else "little"
    content, size = start + int.from_bytes(head[4:8], order), int.from_bytes(head[8:12], order)
    present = stop - content
    if present < 0 or len(head) < 24:
        return None
    if size != UNKNOWN_32 and 0 < size <= present:
        return Segment(start, content + size, decoder_knows=True)
    held = 1.0 if size in (0, UNKNOWN_32) else present / size
    whole = min(present, UNKNOWN_32).to_bytes(4, order)
    return Segment(start, stop, {start + 8: whole}, decoder_knows=True, held=held)
