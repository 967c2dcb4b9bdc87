"""What one would write without this package: mel-RVQ tokens by soundfile and torchaudio, one recording at a time."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import soundfile
import torch
import torchaudio
from torch import Tensor

from pipeline.audio.codecs.mel_rvq import MelRvqCodec


def read_plainly(path: Path, sample_rate: int) -> Tensor:
    """A recording's samples [S], mono, resampled, without checks."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return _resampler(rate, sample_rate)(torch.from_numpy(samples.mean(axis=1)))


@lru_cache
def _resampler(source_rate: int, target_rate: int) -> torchaudio.transforms.Resample:
    """As long a filter as ours: the short default leaves aliases."""
    return torchaudio.transforms.Resample(
        source_rate, target_rate, "sinc_interp_kaiser", lowpass_filter_width=64, rolloff=0.9475937, beta=14.769656
    )


def encode_plainly(audios: Iterable[Tensor], codec: MelRvqCodec, device: torch.device) -> Tensor:
    """The tokens of all audios [S] on the CPU, [T], made on a device one after another."""
    config = codec.config
    log_mel = torchaudio.transforms.MelSpectrogram(
        config.sample_rate, config.n_fft, hop_length=config.hop_length, n_mels=config.n_mels, f_min=config.f_min,
        f_max=config.f_max, power=1.0, norm="slaney", mel_scale="slaney",
    ).to(device)  # fmt: skip
    codebooks, mean, tokens = codec.quantiser.codebooks.to(device), codec.mean.to(device), []
    for samples in audios:
        audio = samples.to(device)
        audio = audio * (10 ** (config.loudness_db / 20) / audio.square().mean().sqrt())
        rest = log_mel(audio).clamp_min(config.log_floor).log().T - mean
        codes = []
        for book in codebooks:
            codes.append(torch.cdist(rest, book).argmin(dim=1))
            rest = rest - book[codes[-1]]
        tokens.append(torch.stack(codes, dim=1).flatten().cpu())
    return torch.cat(tokens)
