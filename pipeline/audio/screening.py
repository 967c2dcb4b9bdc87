"""Which recordings can be used."""

import math

from pipeline.audio.configuration import ScreeningConfig
from pipeline.audio.survey import Survey
from pipeline.audio.unusable import UnusableRecording

# Floating-point files may go beyond full scale a little; far beyond it they are scaled in another way, or broken.
LARGEST_PEAK = 10.0


def screen(found: Survey, min_seconds: float, config: ScreeningConfig) -> None:
    """Raise UnusableRecording when a recording is damaged, empty, not finite, too short, silent or clipped."""
    if not config.min_sample_rate <= found.sample_rate <= config.max_sample_rate:
        raise UnusableRecording(
            f"sample rate {found.sample_rate} Hz, not between {config.min_sample_rate} and {config.max_sample_rate} Hz"
        )
    if found.damage and config.damaged == "skip":
        raise UnusableRecording(f"damaged: {found.damage}")
    if not found.take.n_frames:
        raise UnusableRecording("empty: no samples")
    if not found.finite:
        raise UnusableRecording("holds NaN or infinite samples")
    if found.peak > LARGEST_PEAK:
        raise UnusableRecording(f"not audio at full scale 1: a sample is {found.peak:.3g}")
    if found.seconds < min_seconds:
        # Rounded down: 0.298 s are not "0.30 s of at least 0.3 s".
        seconds = math.floor(100 * found.seconds) / 100
        raise UnusableRecording(f"too short: {seconds:.2f} s of at least {min_seconds:g} s")
    if found.rms < config.silence_rms:
        raise UnusableRecording(f"silent: RMS {found.rms:.1e} below {config.silence_rms:g}")
    if found.clipped_fraction > config.max_clipped_fraction:
        raise UnusableRecording(
            f"clipped: {found.clipped_fraction:.1%} of the samples, more than {config.max_clipped_fraction:.1%}"
        )
