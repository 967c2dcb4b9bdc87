"""Phase recovery from magnitude spectra: whole utterances, and chunk by chunk with committed samples held fixed."""

from dataclasses import dataclass

import numpy as np
import torch
import torchaudio
from torch import Tensor

# Griffin-Lim starts from noise phases (slightly better than zero phases); a fixed seed makes decoding repeatable.
NOISE_SEED = 0


@dataclass(frozen=True)
class GriffinLim:
    """Fast Griffin-Lim (Perraudin, Balazs and Søndergaard, 2013) for a periodic Hann window of `n_fft` samples.

    Frame i is centred on sample i * hop_length, as in `torch.stft(center=True)`. F frames give F * hop_length samples:
    the last frame is held for one more hop, so that the end is covered as well as the middle.
    """

    n_fft: int
    hop_length: int
    iterations: int
    momentum: float

    @property
    def half_window(self) -> int:
        """Samples on either side of a frame's centre."""
        return self.n_fft // 2

    @property
    def useful_context(self) -> int:
        """How many frames before a chunk reach into it; older ones lie wholly in committed samples."""
        return -(-self.half_window // self.hop_length) - 1

    def reconstruct(self, magnitudes: Tensor) -> Tensor:
        """Return the audio [F * hop_length] whose STFT magnitudes are near `magnitudes` [F, n_fft // 2 + 1]."""
        n_frames = len(magnitudes)
        if n_frames == 0:
            return torch.zeros(0)
        # The STFT inside reflects half a window at the end: a few frames alone are too short for that.
        n_held = max(1, self.half_window // self.hop_length + 2 - n_frames)
        held = torch.cat([magnitudes, magnitudes[-1:].expand(n_held, -1)])
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would reseed the accelerators too.
            torch.default_generator.manual_seed(NOISE_SEED)
            audio = torchaudio.functional.griffinlim(
                held.T,
                window=torch.hann_window(self.n_fft),
                n_fft=self.n_fft,
                hop_length=self.hop_length,
                win_length=self.n_fft,
                power=1.0,
                n_iter=self.iterations,
                momentum=self.momentum,
                length=None,
                rand_init=True,
            )
        return audio[: n_frames * self.hop_length]


class GriffinLimStream:
    """Griffin-Lim over successive windows of frames (after RTISI-LA: Zhu, Beauregard and Wyse, 2007).

    Samples once returned are held fixed in every later iteration, so neighbouring chunks join in phase. The estimate
    made for the look-ahead frames is where the next window starts from.
    """

    def __init__(self, settings: GriffinLim) -> None:
        self.settings = settings
        self._window = torch.hann_window(settings.n_fft)
        self._noise = torch.Generator().manual_seed(NOISE_SEED)
        self._committed = torch.zeros(0)  # the latest samples returned, as far back as a window can reach
        self._estimate = torch.zeros(0)  # the samples after them, as last estimated

    def step(self, magnitudes: Tensor, n_context: int, n_new: int) -> Tensor:
        """Return the samples [n_new * hop_length] of the new frames.

        `magnitudes` [n_context + n_new + look-ahead, n_fft // 2 + 1] continues the frames of the previous step; the
        first step has no context. Without look-ahead frames the last one is held for one more hop.
        """
        hop_length, half_window = self.settings.hop_length, self.settings.half_window
        n_useless = max(0, n_context - self.settings.useful_context)
        magnitudes, n_context = magnitudes[n_useless:], n_context - n_useless
        if len(magnitudes) == n_context + n_new:
            magnitudes = torch.cat([magnitudes, magnitudes[-1:]])
        first = len(self._committed) == 0
        # The half window before sample 0 belongs to no frame's hop: it is estimated, committed, and never returned.
        n_fixed = 0 if first else half_window + n_context * hop_length
        fixed = self._committed[len(self._committed) - n_fixed :]
        audio = self._iterate(magnitudes, fixed)

        end = half_window + (n_context + n_new) * hop_length
        new = audio[n_fixed:end]
        self._estimate = audio[end:]
        reach = half_window + self.settings.useful_context * hop_length
        self._committed = torch.cat([self._committed, new])[-reach:]
        return new[half_window:] if first else new

    def _iterate(self, magnitudes: Tensor, fixed: Tensor) -> Tensor:
        momentum = self.settings.momentum / (1 + self.settings.momentum)
        # The squared windows that overlap on each sample; its outermost samples see next to none.
        envelope = self._overlap_add(self._window.square().repeat(len(magnitudes), 1)).clamp_min(1e-3)

        def synthesise(phases: Tensor) -> Tensor:
            audio = self._overlap_add(_inverse_rfft(magnitudes * phases, self.settings.n_fft) * self._window)
            audio = audio / envelope
            audio[: len(fixed)] = fixed
            return audio

        phases = self._starting_phases(magnitudes.shape, fixed, len(envelope))
        previous = torch.zeros((), dtype=phases.dtype)
        for _ in range(self.settings.iterations):
            rebuilt = self._spectra(synthesise(phases))
            phases = _unit(rebuilt - momentum * previous)
            previous = rebuilt
        return synthesise(phases)

    def _starting_phases(self, shape: torch.Size, fixed: Tensor, n_samples: int) -> Tensor:
        """Phases of what is known already where a frame's centre lies in it, and noise after that."""
        phases = _unit(torch.complex(*(torch.rand(shape, generator=self._noise) for _ in range(2))))
        known = torch.cat([fixed, self._estimate])[:n_samples]
        n_known = (len(known) - self.settings.half_window) // self.settings.hop_length + 1
        if n_known > 0:
            spectra = self._spectra(torch.nn.functional.pad(known, (0, n_samples - len(known))))
            phases[:n_known] = _unit(spectra[:n_known])
        return phases

    def _spectra(self, audio: Tensor) -> Tensor:
        frames = audio.unfold(0, self.settings.n_fft, self.settings.hop_length)
        return _rfft(frames * self._window)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        n_fft, hop_length = self.settings.n_fft, self.settings.hop_length
        n_samples = (len(frames) - 1) * hop_length + n_fft
        return torch.nn.functional.fold(frames.T[None], (1, n_samples), (1, n_fft), stride=(1, hop_length))[0, 0, 0]


# NumPy's transforms take one thread. Those of torch share out a chunk's few frames, 20 µs of work, among all: where
# another program is at work beside, the threads wait for each other for milliseconds, hundreds of times a chunk.
def _rfft(frames: Tensor) -> Tensor:
    return torch.from_numpy(np.fft.rfft(frames.numpy()))


def _inverse_rfft(spectra: Tensor, n_fft: int) -> Tensor:
    return torch.from_numpy(np.fft.irfft(spectra.numpy(), n_fft))


def _unit(spectra: Tensor) -> Tensor:
    return spectra / spectra.abs().add(1e-16)
