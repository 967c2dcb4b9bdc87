"""The model's speech before judges that were trained elsewhere."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pipeline.evaluation.clip import CODEC, GENERATED
from pipeline.evaluation.findings import Findings
from pipeline.evaluation.hearing import call_in_panel, hear
from pipeline.evaluation.specimens import JUNK, Exhibit, exhibits
from pipeline.evaluation.subject import Subject
from pipeline.judges.judge import SAMPLE_RATE, Judgement, Measure
from pipeline.judges.registry import NOT_ASKED_FOR, Panel
from pipeline.judges.separation import TELLS, separation
from pipeline.statistics.bootstrap import bootstrap
from pipeline.statistics.interval import Interval
from pipeline.statistics.statistic import RatioOfSums

log = logging.getLogger(__name__)

ALL_GENERATED, ALL_JUNK = "generated", "junk"


def judging(subject: Subject) -> Findings:
    """What the judges who are here say of each sound, and whether they can tell speech from what is none."""
    settings, rate = subject.settings.judging, subject.codec.sample_rate
    panel = call_in_panel(settings, subject.device.type)
    if absent := [name for name, reason in panel.skipped.items() if reason != NOT_ASKED_FOR]:
        log.info("Judges who are not asked: %s (%s)", ", ".join(absent), panel.skipped[absent[0]])
    n = settings.judged_clips if panel.judges else 0
    panel, judged = hear(panel, exhibits(subject.clips, subject.origins, rate, n, subject.settings.seed))
    judgements = [row for name, exhibit, judgement in judged for row in judgement_rows(name, exhibit, judgement)]
    bodies = body_rows(judgements, {name: judge.measures for name, judge in panel.judges.items()})
    for sentence in doubts(bodies):
        log.info("%s", sentence)
    return Findings(
        judge_metrics(bodies),
        {"judgements.csv": judgements, "judge_bodies.csv": bodies, "heard.csv": heard_rows(judged)},
        {"judges.json": describe(panel, rate)},
    )


def judgement_rows(name: str, exhibit: Exhibit, judgement: Judgement) -> list[dict[str, Any]]:
    """One row a figure, for judgements.csv; what is no number is none."""
    return [
        {
            "judge": name,
            "measure": measure,
            "signal": exhibit.kind,
            "number": exhibit.number,
            "document": exhibit.document,
            "value": value,
        }
        for measure, value in judgement.figures.items()
        if np.isfinite(value)
    ]


def heard_rows(judged: Sequence[tuple[str, Exhibit, Judgement]]) -> list[dict[str, Any]]:
    """What was heard in each sound, beside what was said in it, for heard.csv."""
    return [
        {
            "judge": name,
            "signal": exhibit.kind,
            "number": exhibit.number,
            "said": exhibit.specimen.transcript if exhibit.kind not in JUNK else "",
            "heard": judgement.heard,
        }
        for name, exhibit, judgement in judged
        if judgement.heard is not None
    ]


def body_rows(
    judgements: Sequence[Mapping[str, Any]], measures: Mapping[str, Mapping[str, Measure]]
) -> list[dict[str, Any]]:
    """One row a judge, measure and body of sounds: the mean, and how often real speech is preferred."""
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in judgements:
        by_signal = values.setdefault((row["judge"], row["measure"]), {})
        for signal in bodies_with(row["signal"]):
            by_signal.setdefault(signal, []).append(row["value"])
    return [
        {
            "judge": judge,
            "measure": measure,
            "signal": signal,
            "n": len(found),
            **interval_of(found),
            "separation": separation(by_signal.get(CODEC, []), found, measures[judge][measure].better),
        }
        for (judge, measure), by_signal in values.items()
        for signal, found in by_signal.items()
    ]


def doubts(bodies: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence a measure, of the sounds that are no speech and that it cannot tell from real speech here."""
    taken: dict[tuple[str, str], list[str]] = {}
    for row in bodies:
        if row["signal"] in JUNK and row["separation"] < TELLS:
            taken.setdefault((row["judge"], row["measure"]), []).append(row["signal"])
    return [
        f"The judge {judge} cannot tell {', '.join(signals)} from real speech by {measure} here."
        for (judge, measure), signals in taken.items()
    ]


def interval_of(values: Sequence[float]) -> dict[str, float]:
    """The mean of a body, and between what it is known to lie."""
    return asdict(bootstrap(RatioOfSums.mean(np.asarray(values, dtype=float))))


def bodies_with(kind: str) -> tuple[str, ...]:
    """The bodies of sounds that a kind belongs to."""
    return (kind, *([ALL_GENERATED] if kind in GENERATED else []), *([ALL_JUNK] if kind in JUNK else []))


def judge_metrics(bodies: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of each measure the model's figure, that of real speech through the codec, and whether the judge can tell."""
    metrics: dict[str, float] = {}
    for row in bodies:
        name = f"judge/{row['judge']}/{row['measure']}"
        interval = Interval(row["value"], row["low"], row["high"])
        if row["signal"] == ALL_GENERATED:
            metrics |= interval.metrics(name)
        elif row["signal"] == CODEC:
            metrics |= interval.metrics(f"{name}_reference")
        elif row["signal"] == ALL_JUNK:
            metrics[f"{name}_separation"] = row["separation"]
    return metrics


def describe(panel: Panel, sample_rate: int) -> dict[str, Any]:
    """Who judged, by which measures, and who did not and why."""
    return {
        "sample_rate": sample_rate,
        "expected_sample_rate": SAMPLE_RATE,
        "judges": {
            name: {
                "origin": judge.origin,
                "measures": {
                    measure: {"heading": its.heading, "better": its.better, "meaning": its.meaning}
                    for measure, its in judge.measures.items()
                },
            }
            for name, judge in panel.judges.items()
        },
        "skipped": dict(panel.skipped),
    }
