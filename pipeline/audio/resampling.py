"""From one sample rate to another."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import soxr
import torch
import torchaudio.transforms
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

# Float32 samples [S], and how many there are a second.
Sound = tuple[np.ndarray, int]

CPU = torch.device("cpu")

# Below, torchaudio's table of filter phases fits a cache: 16 MB. It grows with the product of the reduced rates.
LARGEST_TABLE = 1 << 22
# On a CPU torch compiles a convolution for each length, and keeps a thousand of them: there are so many a second.
_LENGTHS_A_SECOND = 4
_LOWPASS_WIDTH = 64
_ROLLOFF = 0.9475937167399596


def resample(audio: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """Bring float32 samples [S] from one sample rate (Hz) to another.

    A long Kaiser window (torchaudio's parameters for librosa's `kaiser_best`): the short default leaves an alias
    only 9 dB down just above the new Nyquist frequency, this one 60 dB. It tabulates every phase of the filter, which
    for rates with few common factors (47,999 to 8,000 Hz: 1.6 GB) is out of all proportion; soxr takes these, in
    memory and time that do not depend on the ratio.

    Raises:
        ValueError: a rate is not positive.
    """
    if source_rate <= 0 or target_rate <= 0:
        raise ValueError(f"sample rates must be positive, not {source_rate} and {target_rate}.")
    audio = np.ascontiguousarray(audio, dtype=np.float32)
    if source_rate == target_rate or not len(audio):
        return audio
    if table_size(source_rate, target_rate) > LARGEST_TABLE:
        resampled = soxr.resample(audio, source_rate, target_rate, quality="VHQ")
        return _fit(resampled, math.ceil(len(audio) * target_rate / source_rate))
    padded = np.pad(audio, (0, -len(audio) % max(1, source_rate // _LENGTHS_A_SECOND)))
    resampled = _resampler(source_rate, target_rate, CPU)(torch.from_numpy(padded)).numpy()
    return resampled[: math.ceil(len(audio) * target_rate / source_rate)]


def resample_many(sounds: Sequence[Sound], target_rate: int, device: torch.device) -> list[Tensor]:
    """Bring several sounds, none of them empty, to one sample rate (Hz); computed on `device`, where they end.

    As `resample` does each but for rounding; those of one rate together.
    """
    audios: list[Tensor] = [torch.empty(0)] * len(sounds)
    for source_rate in {rate for _, rate in sounds}:
        numbers = [number for number, (_, rate) in enumerate(sounds) if rate == source_rate]
        samples = [sounds[number][0] for number in numbers]
        for number, audio in zip(numbers, _resample_equal(samples, source_rate, target_rate, device), strict=True):
            audios[number] = audio
    return audios


def _resample_equal(
    samples: Sequence[np.ndarray], source_rate: int, target_rate: int, device: torch.device
) -> Sequence[Tensor]:
    """Bring the samples [S] of several sounds of one rate to another."""
    if table_size(source_rate, target_rate) > LARGEST_TABLE:
        samples, source_rate = [resample(one, source_rate, target_rate) for one in samples], target_rate
    audios = [torch.from_numpy(one).to(device) for one in samples]
    if source_rate == target_rate:
        return audios
    resampled = _resampler(source_rate, target_rate, device)(pad_sequence(audios, batch_first=True))
    lengths = [math.ceil(len(one) * target_rate / source_rate) for one in audios]
    return [row[:length] for row, length in zip(resampled, lengths, strict=True)]


def table_size(source_rate: int, target_rate: int) -> int:
    """The numbers in torchaudio's table for a pair of rates: a filter for each phase."""
    divisor = math.gcd(source_rate, target_rate)
    source, target = source_rate // divisor, target_rate // divisor
    width = math.ceil(_LOWPASS_WIDTH * source / (min(source, target) * _ROLLOFF))
    return target * (2 * width + source)


@lru_cache(maxsize=4)
def _resampler(source_rate: int, target_rate: int, device: torch.device) -> torchaudio.transforms.Resample:
    """With its table, which takes longer to make than a second of audio to resample."""
    resampler = torchaudio.transforms.Resample(
        source_rate,
        target_rate,
        "sinc_interp_kaiser",
        lowpass_filter_width=_LOWPASS_WIDTH,
        rolloff=_ROLLOFF,
        beta=14.769656459379492,
        dtype=torch.float32,
    )
    return resampler.to(device)


def _fit(audio: np.ndarray, length: int) -> np.ndarray:
    """Cut or pad at the end by the sample or two that rounding makes."""
    return np.pad(audio[:length], (0, max(0, length - len(audio)))).astype(np.float32)
