"""Do the measures order what anyone can order? Junk, random tokens, models that have learnt ever more, real speech.

    python -m benchmarks.ordering OUTPUTS [OUTPUTS ...]

OUTPUTS are folders of outputs, evaluated on the same data (`python -m pipeline.evaluate paths.outputs=OUTPUTS`), the
least trained first. Prints a table in Markdown: a row a rung from junk to real speech, a column a measure, figures with
95 % intervals. One is bold where its whole interval is better than that of the row above. Junk, random tokens and real
speech are those of the last evaluation. Minimal pairs are those of all tasks together but words, which not every corpus
allows.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.evaluation.minimal_pairs import is_right
from pipeline.evaluation.pair_tasks import WORDS
from pipeline.plumbing.files import read_csv, read_json
from pipeline.reporting.pairs import CHANCE
from pipeline.statistics.interval import Interval
from pipeline.statistics.proportion import clustered_wilson

MODEL, RANDOM, CODEC = "generated", "unigram_random", "codec"
# Names of bodies of sound, as evaluations have them and as they are printed.
BELOW = {"noise": "noise", "tone": "tone", "silence": "silence", "shuffled": "shuffled", RANDOM: "random tokens"}
DISTANCE, LOSS, PAIRS = "fd", "loss", "pairs"


@dataclass(frozen=True)
class Rung:
    """A body of sound, or a model, and its figures by measure."""

    name: str
    figures: Mapping[str, Interval]


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ordering",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("outputs", nargs="+", type=Path, metavar="OUTPUTS")
    folders = [outputs / "evaluate" for outputs in parser.parse_args(arguments).outputs]
    for folder in folders:
        if not (folder / "judge_bodies.csv").is_file():
            parser.error(f"{folder} is no evaluation; python -m pipeline.evaluate paths.outputs={folder.parent}")
    print(table(ladder(folders)))


def ladder(folders: Sequence[Path]) -> list[Rung]:
    """From evaluations of ever better models, the rungs from junk to real speech."""
    last = folders[-1]
    return [
        *(Rung(name, figures_of(last, signal)) for signal, name in BELOW.items()),
        *(Rung(folder.parent.name, figures_of(folder, MODEL)) for folder in folders),
        Rung("codec", figures_of(last, CODEC)),
    ]


def figures_of(folder: Path, signal: str) -> dict[str, Interval]:
    """What an evaluation says of a body of sound, and of what makes it: the model, or counting."""
    figures: dict[str, Interval] = {}
    for row in rows_of(signal, folder / "comparison.csv"):
        figures[DISTANCE] = _interval(row, "fd", "fd_low", "fd_high")
    metrics = read_json(folder / "metrics.json")
    if signal == MODEL:
        figures[LOSS] = _interval(metrics, "eval/loss", "eval/loss/low", "eval/loss/high")
        figures[PAIRS] = accuracy(read_csv(folder / "minimal_pairs.csv"))
    elif signal == RANDOM:
        # Who counts tokens finds the same tokens in another order equally likely.
        figures |= {LOSS: Interval.unknown(metrics["eval/loss_unigram"]), PAIRS: Interval(CHANCE, CHANCE, CHANCE)}
    for row in rows_of(signal, folder / "judge_bodies.csv"):
        figures[f"{row['judge']} {row['measure']}"] = _interval(row, "value", "low", "high")
    return figures


def rows_of(signal: str, table: Path) -> list[dict[str, str]]:
    """The rows of a table that are of a body of sound."""
    return [row for row in read_csv(table) if row["signal"] == signal]


def accuracy(pairs: Sequence[Mapping[str, str]]) -> Interval:
    """The share of minimal pairs that a model gets right, whatever the task; words are left out."""
    of_speech = [pair for pair in pairs if pair["task"] != WORDS]
    right = [is_right(float(pair["nats_true"]), float(pair["nats_false"])) for pair in of_speech]
    return clustered_wilson(np.array(right), [pair["document"] for pair in of_speech])


def table(rungs: Sequence[Rung]) -> str:
    """The rungs in Markdown, by those measures that the last model has: error rates need what was said."""
    measures = list(rungs[-2].figures)
    lines = [["", *measures], ["---"] * (len(measures) + 1)]
    for below, rung in zip((None, *rungs), rungs, strict=False):
        lines.append([rung.name, *(cell(rung, below, measure) for measure in measures)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(rung: Rung, below: Rung | None, measure: str) -> str:
    """A figure and its bounds, bold where it is certainly better than that of the rung below."""
    figure = rung.figures.get(measure)
    if figure is None or math.isnan(figure.value):
        return "–"
    digits = 0 if measure == DISTANCE else 2
    text = f"{figure.value:,.{digits}f}"
    if figure.low < figure.high:
        text += f" ({figure.low:,.{digits}f}–{figure.high:,.{digits}f})"
    return f"**{text}**" if below and is_better(figure, below.figures.get(measure), measure) else text


def is_better(figure: Interval, other: Interval | None, measure: str) -> bool:
    """Whether a figure's whole interval is better than another one's."""
    if other is None:
        return False
    return figure.lies_below(other) if measure in (DISTANCE, LOSS) else other.lies_below(figure)


def _interval(row: Mapping[str, str | float], *names: str) -> Interval:
    value, low, high = (float(row.get(name, math.nan)) for name in names)
    return Interval(value, low, high)


if __name__ == "__main__":
    main(sys.argv[1:])
