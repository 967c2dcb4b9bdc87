"""Sound as bytes before its length is known: 16-bit samples, and the head of a WAV stream that has no end yet."""

import io
import struct

import numpy as np
import soundfile

SAMPLE_BYTES = 2
# What stands for a length that nobody knows yet: players go on to the end of the stream.
UNKNOWN = 0xFFFFFFFF
PCM = 1


def pcm16(audio: np.ndarray) -> bytes:
    """Samples [S], full scale ±1, as the signed 16-bit little-endian numbers that files hold; beyond ±1 is clipped."""
    samples = io.BytesIO()
    # The rate is in no byte of raw samples.
    soundfile.write(samples, np.clip(audio, -1.0, 1.0), 1, format="RAW", subtype="PCM_16", endian="LITTLE")
    return samples.getvalue()


def wav_stream_header(sample_rate: int) -> bytes:
    """The 44 bytes before the samples of a mono 16-bit WAV stream of unknown length.

    Args:
        sample_rate: in Hz.
    """
    layout = struct.pack("<HHIIHH", PCM, 1, sample_rate, SAMPLE_BYTES * sample_rate, SAMPLE_BYTES, 8 * SAMPLE_BYTES)
    head = struct.pack("<4sI4s", b"RIFF", UNKNOWN, b"WAVE")
    return head + struct.pack("<4sI", b"fmt ", len(layout)) + layout + struct.pack("<4sI", b"data", UNKNOWN)
