"""Audio files and waveforms: read, write, resample, level."""

import os
import re
import stat
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio.functional

from pipeline.plumbing.files import atomic_write

# Programs that write a WAV file to a pipe cannot know its length, and announce one near 2 or 4 GiB.
STREAMED_LENGTH = 0x7F000000
_SHORT_DATA = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)


class UnusableRecording(Exception):  # noqa: N818 - a verdict on a recording, which the caller lists, more than an error
    """A recording that cannot be used.

    Attributes:
        reason: why, in a few words that fit a table cell.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_audio(path: Path | str) -> tuple[np.ndarray, int]:
    """Read a WAV, FLAC, OGG or MP3 file.

    Returns:
        The samples [S] as float32, channels averaged, full scale ±1; and the sample rate in Hz.

    Raises:
        UnusableRecording: there is no such file, or it cannot be read to its end.
    """
    path = Path(path)
    try:
        _require_content(path)
        with soundfile.SoundFile(path) as file:
            _require_whole(file)
            channels = file.read(dtype="float32", always_2d=True)
            sample_rate = file.samplerate
    except OSError as error:
        raise UnusableRecording(_describe(path, error)) from error
    except (soundfile.SoundFileError, ValueError, TypeError, MemoryError) as error:
        raise UnusableRecording(f"not a readable audio file ({_one_line(error)})") from error
    return channels.mean(axis=1, dtype=np.float32), sample_rate


def _require_content(path: Path) -> None:
    """Raise unless `path` is a regular file with something in it: opening a pipe, say, would wait for ever."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise UnusableRecording("a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise UnusableRecording("not a regular file")
    if status.st_size == 0:
        raise UnusableRecording("the file is empty (0 bytes)")
    if not os.access(path, os.R_OK):
        raise UnusableRecording("permission denied")


def _require_whole(file: soundfile.SoundFile) -> None:
    """Raise when a WAV header announces more data than there is, which libsndfile only notes in its log."""
    if note := _SHORT_DATA.search(file.extra_info):
        announced, present = int(note[1]), int(note[2])
        if present < announced < STREAMED_LENGTH:
            raise UnusableRecording(f"truncated: {present} of the announced {announced} bytes are there")


def _describe(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "a link to a file that does not exist" if path.is_symlink() else "the file does not exist"
    if isinstance(error, PermissionError):
        return "permission denied"
    return _one_line(error)


def _one_line(error: BaseException) -> str:
    # libsndfile names the whole path, which the table of rejected recordings already has.
    return " ".join(str(error).rsplit(": ", 1)[-1].split()).rstrip(".") or type(error).__name__


def write_wav(path: Path | str, audio: np.ndarray, sample_rate: int) -> None:
    """Write samples [S] as a 16-bit mono WAV file, whole or not at all; samples beyond ±1 are clipped.

    Raises:
        ValueError: the audio is not one-dimensional, or holds NaN or infinite samples.
    """
    audio = np.asarray(audio)
    if audio.ndim != 1:
        raise ValueError(f"{path}: expected mono samples [S], not an array of shape {list(audio.shape)}.")
    if not np.isfinite(audio).all():
        raise ValueError(f"{path}: the audio holds NaN or infinite samples.")
    with atomic_write(path) as temporary:
        soundfile.write(temporary, np.clip(audio, -1.0, 1.0), sample_rate, subtype="PCM_16", format="WAV")


def resample(audio: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """Bring float32 samples [S] from one sample rate (Hz) to another.

    A long Kaiser window (torchaudio's parameters for librosa's `kaiser_best`): the short default leaves an alias
    only 9 dB down just above the new Nyquist frequency, this one 60 dB.
    """
    if source_rate <= 0 or target_rate <= 0:
        raise ValueError(f"sample rates must be positive, not {source_rate} and {target_rate}.")
    audio = np.ascontiguousarray(audio, dtype=np.float32)
    if source_rate == target_rate or not len(audio):
        return audio
    return torchaudio.functional.resample(
        torch.from_numpy(audio),
        source_rate,
        target_rate,
        lowpass_filter_width=64,
        rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser",
        beta=14.769656459379492,
    ).numpy()
