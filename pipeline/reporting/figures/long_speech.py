"""Long speech over time: what each window is, clip by clip."""

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.reporting.figures.style import (
    FOURTH,
    HALF,
    MODEL,
    REAL,
    SECOND,
    SHADES,
    THIRD,
    new_figure,
    styled,
    to_svg,
)
from pipeline.reporting.judged import LongWindow

# How far up the axis of repetition goes at the least, in per cent: what real speech has now and then is little.
LEAST_REPETITION = 20
SPEECH, HELD_OUT = "speech", "held_out"
# What a window can be.
COLOURS = {
    SPEECH: MODEL,
    "silence": SHADES[2],
    "held": FOURTH,
    "loop": SECOND,
    "tone": THIRD,
    "noise": SHADES[0],
}


@styled
def long_speech(windows: Sequence[LongWindow], seconds: float) -> Markup:
    """Draw each clip as a row of windows, coloured by what they are.

    Args:
        windows: of all clips.
        seconds: the length of a window.
    """
    clips = list(dict.fromkeys((window.signal, window.number) for window in windows))
    states = [state for state in COLOURS if any(window.state == state for window in windows)]
    figure = new_figure(HALF, 110 + 30 * len(clips))
    axes = figure.add_subplot()
    for state in states:
        own = [window for window in windows if window.state == state]
        rows, starts = [clips.index((w.signal, w.number)) for w in own], [w.second for w in own]
        axes.barh(rows, 0.96 * seconds, left=starts, height=0.7, color=COLOURS[state], label=state)
    names = ["real, joined" if signal == HELD_OUT else f"clip {number + 1}" for signal, number in clips]
    axes.set_yticks(range(len(clips)), names)
    axes.set_ylim(len(clips) - 0.4, -0.6)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("seconds")
    figure.legend(loc="outside upper left", ncols=6, borderpad=0.2, columnspacing=1.2)
    n_speech = sum(window.state == SPEECH for window in windows)
    return to_svg(figure, "long-speech", f"Long speech: {n_speech} of {len(windows)} windows are speech")


@styled
def repetition_over_time(windows: Sequence[LongWindow]) -> Markup:
    """Draw how much of each window its clip has said before."""
    figure = new_figure(HALF, 290)
    axes = figure.add_subplot()
    for clip in dict.fromkeys((window.signal, window.number) for window in windows):
        own = [window for window in windows if (window.signal, window.number) == clip]
        colour = REAL if clip[0] == HELD_OUT else MODEL
        axes.plot(
            [w.second for w in own],
            [100 * w.repetition for w in own],
            color=colour,
            marker="o",
            markersize=3,
            clip_on=False,
        )
    highest = max((window.repetition for window in windows), default=0.0)
    axes.set(xlabel="seconds", ylabel="said before", ylim=(0, max(LEAST_REPETITION, 105 * highest)))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))
    return to_svg(figure, "long-repetition", "How much of each window the clip has said before")
