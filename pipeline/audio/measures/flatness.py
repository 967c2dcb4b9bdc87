"""Spectral flatness: how far an utterance's spectrum lies between a tone (0) and white noise (1)."""

import numpy as np

from pipeline.audio.measures.spectra import HIGHEST_FREQUENCY, checked_audio, is_silent, power_spectra

WINDOW_SECONDS = 0.064
LOWEST_FREQUENCY = 100.0  # Hz
ACTIVE_RANGE_DB = 40.0
RELATIVE_FLOOR = 1e-10


def spectral_flatness(audio: np.ndarray, sample_rate: int) -> float:
    """Return the spectral flatness of one utterance, audio [S]: the Wiener entropy of its long-term power spectrum.

    Power spectra of 64 ms periodic Hann windows every 32 ms, without padding; bins from 100 to 3800 Hz; averaged over
    the frames whose power is within 40 dB of the loudest; plus 1e-10 of the average's maximum. The flatness is the
    geometric mean of that spectrum over its arithmetic mean: `exp(mean(ln P)) / mean(P)`.

    Gain, added silence and resampling leave it unchanged. White noise scores .995, a pure tone 1e-7, utterances of
    human speech .07 to .25. It is NaN for audio that is shorter than one window, silent (an RMS level below 1e-4, a
    constant offset aside), or without any power in the band.

    Raises:
        ValueError: the audio cannot be measured (see `spectra.checked_audio`).
    """
    audio = checked_audio(audio, sample_rate)
    n_fft = round(WINDOW_SECONDS * sample_rate)
    frequencies = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    band = (frequencies >= LOWEST_FREQUENCY) & (frequencies <= HIGHEST_FREQUENCY)
    power = power_spectra(audio, n_fft, n_fft // 2)[:, band]
    frame_power = power.sum(axis=1)
    loudest = frame_power.max(initial=0.0)
    if is_silent(audio) or loudest <= 0:
        return float("nan")
    average = power[frame_power > loudest * 10 ** (-ACTIVE_RANGE_DB / 10)].mean(axis=0)
    average += RELATIVE_FLOOR * average.max()
    return float(np.exp(np.log(average).mean()) / average.mean())
