"""From the first bytes of a file to the module that knows its container."""

from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO

from pipeline.audio.containers.chunks import examine_chunks, is_chunked
from pipeline.audio.containers.flac import examine_flac
from pipeline.audio.containers.layout import Layout, Segment
from pipeline.audio.containers.mpeg import examine_mpeg, find_mpeg
from pipeline.audio.containers.ogg import examine_ogg
from pipeline.audio.containers.tags import skip_id3

Examiner = Callable[[BinaryIO, int, int], Layout]


def examine(file: BinaryIO, size: int) -> Layout:
    """Read what a file of `size` bytes says of itself; a container that is not known is left to the decoder."""
    start = skip_id3(file, 0, size)
    file.seek(start)
    examiner = _examiner(file.read(40))
    layout = Layout(())
    if examiner is not None:
        layout = examiner(file, start, size)
    elif (frames := find_mpeg(file, start, size)) is not None:
        layout = examine_mpeg(file, frames, size)
        if frames > start:
            layout = replace(
                layout, notes=(f"{frames - start} bytes before its first frame are no sound", *layout.notes)
            )
    return layout if layout.segments else Layout((Segment(0, size, decoder_knows=True),), layout.notes)


def _examiner(head: bytes) -> Examiner | None:
    if head.startswith(b"OggS"):
        return examine_ogg
    if head.startswith(b"fLaC"):
        return examine_flac
    return examine_chunks if is_chunked(head) else None
