"""Spectrograms on the mel scale, all on one scale of time, frequency and level."""

import warnings

import numpy as np
import torch
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torchaudio.transforms import MelSpectrogram

from pipeline.reporting.clips import Clip
from pipeline.reporting.figures.style import INK, MODEL, MUTED, REAL, new_figure, styled, to_svg

WIDTH, HEIGHT = 264, 172
DYNAMIC_RANGE_DB = 60.0
F_MIN = 60.0
N_MELS = 72
N_LEVELS = 48
FREQUENCY_TICKS = (200, 500, 1000, 2000, 4000, 8000)


def log_mel(audio: np.ndarray, sample_rate: int, f_max: float, hop_seconds: float = 0.016) -> np.ndarray:
    """Return the mel spectrogram [n_mels, frames] in dB below its own loudest bin, floored at -60 dB.

    32 ms Hann windows, power, 72 bands from 60 Hz to `f_max` Hz (HTK scale). A silent clip lies at the floor.
    """
    window = round(0.032 * sample_rate)
    with warnings.catch_warnings():
        # The lowest bands of a short window hold few bins, which torchaudio warns about.
        warnings.simplefilter("ignore", UserWarning)
        transform = MelSpectrogram(
            sample_rate,
            n_fft=4 * window,
            win_length=window,
            hop_length=round(hop_seconds * sample_rate),
            f_min=F_MIN,
            f_max=f_max,
            n_mels=N_MELS,
            pad_mode="constant",
        )
        power = transform(torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))).double().numpy()
    peak = power.max()
    if peak <= 0.0:
        return np.full(power.shape, -DYNAMIC_RANGE_DB)
    return np.maximum(10 * np.log10(np.maximum(power / peak, 1e-12)), -DYNAMIC_RANGE_DB)


@styled
def spectrogram(clip: Clip, name: str, seconds: float, f_max: float) -> Markup:
    """Draw one clip on axes `seconds` long and up to `f_max` Hz, marking where its prompt ends."""
    figure = new_figure(WIDTH, HEIGHT, constrained=False)
    axes = figure.add_axes((30 / WIDTH, 34 / HEIGHT, 1 - 36 / WIDTH, 1 - 56 / HEIGHT))
    levels = np.round(log_mel(clip.audio, clip.sample_rate, f_max) / DYNAMIC_RANGE_DB * N_LEVELS) / N_LEVELS
    axes.imshow(
        levels,
        origin="lower",
        aspect="auto",
        extent=(0.0, clip.seconds, _mel(F_MIN), _mel(f_max)),
        cmap="magma",
        vmin=-1.0,
        vmax=0.0,
        interpolation="none",
    )
    axes.set_xlim(0, seconds)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    ticks = [frequency for frequency in FREQUENCY_TICKS if frequency <= f_max]
    axes.set_yticks([_mel(frequency) for frequency in ticks], [f"{frequency / 1000:g}" for frequency in ticks])
    axes.tick_params(labelsize=10, pad=3)
    axes.set_xlabel("seconds", fontsize=10, labelpad=1)
    axes.text(-4 / (WIDTH - 36), 1.1, "kHz", transform=axes.transAxes, ha="right", fontsize=10, color=MUTED)
    _mark_origin(axes, clip)
    return to_svg(figure, name, f"Mel spectrogram, {clip.kind}, {clip.seconds:.1f} seconds")


def _mel(frequency: float) -> float:
    """Convert Hz to mel on the HTK scale, the one the bands are spaced on."""
    return 2595.0 * float(np.log10(1.0 + frequency / 700.0))


def _mark_origin(axes: Axes, clip: Clip) -> None:
    """Draw a bar above the image: whose speech it is, real or the model's, and where one turns into the other."""
    prompt = clip.prompt_seconds if clip.kind == "continuation" else 0.0
    spans = {
        "real": [(0.0, clip.seconds, REAL, "real")],
        "codec": [(0.0, clip.seconds, REAL, "real, through the codec")],
        "continuation": [(0.0, prompt, REAL, "prompt, then model"), (prompt, clip.seconds, MODEL, "")],
        "unprompted": [(0.0, clip.seconds, MODEL, "model, unprompted")],
    }[clip.kind]
    in_data_by_axes = axes.get_xaxis_transform()
    for start, end, colour, label in spans:
        if end <= start:
            continue
        bar = Line2D([start, end], [1.035, 1.035], color=colour, linewidth=2.5, solid_capstyle="butt")
        bar.set(transform=in_data_by_axes, clip_on=False)
        axes.add_artist(bar)
        axes.text(start, 1.075, label, transform=in_data_by_axes, fontsize=10, color=INK)
    if 0.0 < prompt < clip.seconds:
        axes.axvline(prompt, color="white", linewidth=1.2, linestyle=(0, (3, 2)))
