"""Which recordings can be used."""

import numpy as np

from pipeline.audio.configuration import ScreeningConfig
from pipeline.audio.reading import UnusableRecording

# A lone sample at full scale is a loud peak; a waveform that stays there has been cut off.
FULL_SCALE = 0.999
CLIPPED_RUN = 3


def screen(audio: np.ndarray, sample_rate: int, min_seconds: float, config: ScreeningConfig) -> None:
    """Raise UnusableRecording when samples [S] are empty, not finite, too short, silent or clipped."""
    if not len(audio):
        raise UnusableRecording("empty: no samples")
    if not np.isfinite(audio).all():
        raise UnusableRecording("holds NaN or infinite samples")
    seconds = len(audio) / sample_rate
    if seconds < min_seconds:
        raise UnusableRecording(f"too short: {seconds:.2f} s of at least {min_seconds:g} s")
    rms = float(np.std(audio, dtype=np.float64))
    if rms < config.silence_rms:
        raise UnusableRecording(f"silent: RMS {rms:.1e} below {config.silence_rms:g}")
    clipped = clipped_fraction(audio)
    if clipped > config.max_clipped_fraction:
        raise UnusableRecording(f"clipped: {clipped:.1%} of the samples, more than {config.max_clipped_fraction:.1%}")


def clipped_fraction(audio: np.ndarray) -> float:
    """The fraction of samples [S] in runs of three or more at full scale (|x| of at least 0.999)."""
    edges = np.flatnonzero(np.diff(np.abs(audio) >= FULL_SCALE, prepend=False, append=False))
    runs = edges[1::2] - edges[::2]
    return float(runs[runs >= CLIPPED_RUN].sum() / max(len(audio), 1))
