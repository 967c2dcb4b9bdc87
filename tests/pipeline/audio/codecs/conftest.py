import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from pipeline.audio.codecs.configuration import MelRvqConfig
from pipeline.audio.codecs.mel_rvq import MelRvqCodec

CONF = Path(__file__).parents[4] / "conf" / "codec"


def synthetic_speech(seconds: float, seed: int, sample_rate: int = 8000) -> Tensor:
    """Voiced syllables: gliding harmonics under two moving formants, and a little breath."""
    generator = torch.Generator().manual_seed(seed)
    start, glide, first, second = torch.rand(4, generator=generator).tolist()
    time = torch.arange(round(seconds * sample_rate)) / sample_rate
    pitch = 100 + 80 * start + 30 * glide * torch.sin(2 * math.pi * 0.7 * time)
    phase = 2 * math.pi * torch.cumsum(pitch, 0) / sample_rate
    formants = (
        500 + 300 * torch.sin(2 * math.pi * (1 + first) * time),
        1700 + 600 * torch.sin(2 * math.pi * (1.5 + second) * time),
    )
    voice = torch.zeros_like(time)
    for harmonic in range(1, 20):
        gain = sum(torch.exp(-(((harmonic * pitch - formant) / 200) ** 2)) for formant in formants)
        voice += gain * torch.sin(harmonic * phase)
    syllables = torch.sin(2 * math.pi * 2 * time).clamp_min(0) ** 0.5
    return 0.1 * voice * syllables + 0.001 * torch.randn(len(time), generator=generator)


def spectral_convergence(reference: Tensor, estimate: Tensor) -> float:
    """Distance of the STFT magnitudes relative to the reference's norm (0 is perfect, 1 as bad as silence)."""
    n_samples = min(len(reference), len(estimate))
    window = torch.hann_window(256)
    magnitudes = [
        torch.stft(audio[:n_samples], 256, 64, window=window, return_complex=True).abs()
        for audio in (reference, estimate)
    ]
    return float((magnitudes[0] - magnitudes[1]).norm() / magnitudes[0].norm())


def log_spectral_distance(reference: Tensor, estimate: Tensor) -> float:
    """Mean over the frames within 40 dB of the loudest of the RMS difference of the spectra in dB."""
    n_samples = min(len(reference), len(estimate))
    window = torch.hann_window(256)
    powers = [
        torch.stft(audio[:n_samples], 256, 64, window=window, return_complex=True).abs().square()
        for audio in (reference, estimate)
    ]
    floor = 1e-6 * powers[0].max()
    difference = 10 * torch.log10((powers[0] + floor) / (powers[1] + floor))
    energy = powers[0].sum(dim=0)
    return float(difference.square().mean(dim=0).sqrt()[energy > 1e-4 * energy.max()].mean())


@pytest.fixture(scope="session")
def speech() -> Callable[..., Tensor]:
    return synthetic_speech


@pytest.fixture(scope="session")
def convergence() -> Callable[[Tensor, Tensor], float]:
    return spectral_convergence


@pytest.fixture(scope="session")
def log_distance() -> Callable[[Tensor, Tensor], float]:
    return log_spectral_distance


@pytest.fixture(scope="session")
def mel_rvq_options() -> dict[str, Any]:
    """The repository's own settings, with codebooks small enough to fit within a second."""
    options = OmegaConf.to_container(OmegaConf.load(CONF / "_mel_rvq.yaml"))
    del options["defaults"]
    return {**options, "n_codebooks": 3, "codebook_size": 32, "fit_frames": 1500}


@pytest.fixture(scope="session")
def mel_rvq(mel_rvq_options: dict[str, Any]) -> MelRvqCodec:
    config = MelRvqConfig(**{name: value for name, value in mel_rvq_options.items() if name != "kind"})
    return MelRvqCodec.fit(config, [synthetic_speech(3.0, seed) for seed in range(15)], seed=0)
