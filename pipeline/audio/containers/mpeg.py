"""MPEG audio: frames, and what a Xing, Info or VBRI header counts. Source: ISO/IEC 11172-3 and 13818-3, 2.4.1."""

from dataclasses import dataclass
from typing import BinaryIO

from pipeline.audio.containers.layout import Layout, Segment
from pipeline.audio.containers.tags import skip_trailing_tags

# Bit rates in kbit/s by (first version?, layer), and sample rates by version; index 0 is the free format.
_BITRATES = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_HEAD_BYTES = 64
_VBRI_OFFSET = 36
_SEARCHED_BYTES = 1 << 16
_SURE_FRAMES = 4


@dataclass(frozen=True)
class _Frame:
    """A frame's header: its length in bytes, its samples, and what all frames of a stream have in common."""

    n_bytes: int
    samples: int
    kind: tuple[int, int, int]
    side_bytes: int


@dataclass
class _Stream:
    """Frames of one kind without a break, from `start` on."""

    start: int
    head: bytes
    frame: _Frame
    stop: int = 0
    n_frames: int = 0
    count_offset: int | None = None
    count: int = 0
    fault: str = ""


def find_mpeg(file: BinaryIO, start: int, stop: int) -> int | None:
    """Where frames begin, within the first 64 KiB: a stream that was captured may begin inside a frame."""
    return _resynchronise(file, start, min(stop, start + _SEARCHED_BYTES), _SURE_FRAMES)


def parse_frame(head: bytes) -> _Frame | None:
    """The frame whose header is in `head`; None where there is none, or one of the free format."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate_index, bitrate_index, padding = head[2] >> 2 & 3, head[2] >> 4, head[2] >> 1 & 1
    if version == 1 or layer == 4 or rate_index == 3 or bitrate_index in (0, 15):
        return None
    first = version == 3
    rate = _SAMPLE_RATES[version][rate_index]
    bitrate = _BITRATES[first, layer][bitrate_index] * 1000
    if layer == 1:
        n_bytes, samples = (12 * bitrate // rate + padding) * 4, 384
    else:
        samples = 576 if layer == 3 and not first else 1152
        n_bytes = samples // 8 * bitrate // rate + padding
    mono = head[3] >> 6 == 3
    side_bytes = {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}[first, mono]
    return _Frame(n_bytes, samples, (version, layer, rate), side_bytes)


def examine_mpeg(file: BinaryIO, start: int, stop: int) -> Layout:
    """Every stream from `start` on, up to the first bytes that are no frame."""
    streams: list[_Stream] = []
    notes: list[str] = []
    position = start
    while position < stop:
        file.seek(position)
        head = file.read(_HEAD_BYTES)
        frame = parse_frame(head)
        if frame is None or (streams and not _follows(file, streams[-1], frame, position, stop)):
            behind_tags = skip_trailing_tags(file, position, stop)
            if behind_tags > position:
                position = behind_tags
                continue
            after = _resynchronise(file, position, stop, n_frames=3)
            if after is None:
                notes.append(f"{stop - position} bytes at its end are no sound")
            elif streams:
                streams[-1].fault = f"bytes {position} to {after} hold no MPEG frame"
            break
        count_offset = _count_offset(head, frame)
        if not streams or count_offset is not None or streams[-1].frame.kind != frame.kind:
            streams.append(_begin(position, frame, head, count_offset))
        if position + frame.n_bytes > stop:
            notes.append("its last frame is cut off")
            break
        position += frame.n_bytes
        streams[-1].stop = position
        streams[-1].n_frames += 1
    return Layout(tuple(_segment(stream, notes) for stream in streams if stream.n_frames > 0), tuple(notes))


def _begin(position: int, frame: _Frame, head: bytes, count_offset: int | None) -> _Stream:
    if count_offset is None:
        return _Stream(position, head[:4], frame)
    count = int.from_bytes(head[count_offset : count_offset + 4], "big")
    # The frame that holds the count is none of those it counts.
    return _Stream(position, head[:4], frame, n_frames=-1, count_offset=position + count_offset, count=count)


def _segment(stream: _Stream, notes: list[str]) -> Segment:
    patches = {}
    if stream.count_offset is not None and 0 < stream.count < stream.n_frames:
        told, found = (n * stream.frame.samples / stream.frame.kind[2] for n in (stream.count, stream.n_frames))
        notes.append(f"its header tells of {told:.1f} s, {found:.1f} s are there and were read")
        patches[stream.count_offset] = stream.n_frames.to_bytes(4, "big")
    prefix = _counting_frame(stream) if stream.count_offset is None else b""
    return Segment(
        stream.start, stream.stop, patches, decoder_knows=stream.count > 0, fault=stream.fault, prefix=prefix
    )


def _counting_frame(stream: _Stream) -> bytes:
    """A frame with the count of frames, for a stream that lacks it.

    Without one the decoder guesses the length from the first frame's bit rate, and stops there.
    """
    if stream.frame.kind[1] != 3:
        return b""
    # No checksum, and the highest bit rate: the frame must have room for the count.
    head = bytes([0xFF, stream.head[1] | 1, stream.head[2] & 0x0D | 0xE0, stream.head[3]])
    frame = parse_frame(head)
    if frame is None:
        return b""
    content = head + bytes(frame.side_bytes) + b"Xing" + (1).to_bytes(4, "big") + stream.n_frames.to_bytes(4, "big")
    return content.ljust(frame.n_bytes, b"\0")


def _follows(file: BinaryIO, stream: _Stream, frame: _Frame, position: int, stop: int) -> bool:
    """Whether a frame goes on with the stream, or truly begins another: four bytes can look like a header by chance."""
    if frame.kind == stream.frame.kind:
        return True
    file.seek(position + frame.n_bytes)
    following = parse_frame(file.read(4))
    return position + frame.n_bytes == stop or (following is not None and following.kind == frame.kind)


def _count_offset(head: bytes, frame: _Frame) -> int | None:
    """Where in a frame its count of frames stands; None where it has none."""
    tag = 4 + frame.side_bytes
    if head[tag : tag + 4] in (b"Xing", b"Info") and head[tag + 7] & 1:
        return tag + 8
    return _VBRI_OFFSET + 14 if head[_VBRI_OFFSET : _VBRI_OFFSET + 4] == b"VBRI" else None


def _resynchronise(file: BinaryIO, position: int, stop: int, n_frames: int) -> int | None:
    """The next position at which so many frames of a kind follow one another, or the last ones of the file."""
    while position < stop:
        file.seek(position)
        block = file.read(min(1 << 16, stop - position))
        if not block:
            return None
        at = block.find(b"\xff")
        while at >= 0:
            if _run(file, position + at, stop, n_frames):
                return position + at
            at = block.find(b"\xff", at + 1)
        position += len(block)
    return None


def _run(file: BinaryIO, position: int, stop: int, n_frames: int) -> bool:
    kind = None
    for _ in range(n_frames):
        file.seek(position)
        frame = parse_frame(file.read(4))
        if frame is None or (kind is not None and frame.kind != kind):
            return False
        kind = frame.kind
        position += frame.n_bytes
        if position >= stop:
            return position == stop
    return True
