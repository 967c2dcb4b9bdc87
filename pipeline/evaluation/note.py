"""What an evaluation adds to its training's run: its figures, and a description that says where to listen."""

from collections.abc import Callable, Mapping, Sequence

# Figures and how they are written.
FIGURES = (
    ("eval/loss", "Test loss", "{:.3f}", " nats a token"),
    ("audio/fd", "Fréchet distance", "{:.0f}", ""),
    ("audio/flatness", "spectral flatness", "{:.3f}", ""),
)
# Kinds of clips, in the order in which one listens: what is to be reached first.
KINDS = {"real": "Real", "codec": "Codec ceiling", "continuation": "Continuation", "unprompted": "Unprompted"}
# Clips of a kind that are linked; the rest lie beside them.
N_LINKED = 4
_ENDS = ("low", "high")


def evaluation_note(metrics: Mapping[str, float], clips: Sequence[str], link: Callable[[str], str]) -> str:
    """The section in Markdown.

    Args:
        metrics: the evaluation's, intervals among them where there are any.
        clips: names of the WAV files, as in `continuation_03.wav`.
        link: where MLflow's pages show a file of the run.
    """
    figures = [f"{label} {_figure(metrics, key, form)}{unit}" for key, label, form, unit in FIGURES if key in metrics]
    kinds = {name.rpartition("_")[0] for name in clips}
    lines = [
        f"- {label}: " + " ".join(_players([name for name in clips if name.rpartition("_")[0] == kind], link))
        for kind, label in KINDS.items()
        if kind in kinds
    ]
    return "\n".join([f"{'; '.join(figures)}.", "", *lines])


def mirrored(metrics: Mapping[str, float], headline: Sequence[str]) -> dict[str, float]:
    """The metrics that the training's run shows too: of intervals only the headline's.

    MLflow draws a section of charts for each interval, among which those of the training would be lost. The run of the
    evaluation and the model have all of them.
    """
    return {
        name: value
        for name, value in metrics.items()
        if name.rpartition("/")[2] not in _ENDS or name.rpartition("/")[0] in headline
    }


def _figure(metrics: Mapping[str, float], key: str, form: str) -> str:
    """A value in bold, with its interval where there is one."""
    value = f"**{form.format(metrics[key])}**"
    if f"{key}/low" not in metrics:
        return value
    low, high = (form.format(metrics[f"{key}/{end}"]) for end in _ENDS)
    return f"{value} ({low} to {high})"


def _players(names: Sequence[str], link: Callable[[str], str]) -> list[str]:
    return [f"[{number}]({link(f'audio/{name}')})" for number, name in enumerate(names[:N_LINKED], start=1)]
