"""Models side by side: the verdict of the paired test, measure by measure, and what both say to the same prompts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.comparison.result import Comparison, Contest, Outcome
from pipeline.comparison.wording import (
    difference_bounds,
    difference_value,
    grade,
    lead,
    meaning,
    more,
    reasons,
    stamp,
    values,
)
from pipeline.reporting.clips import Clip, load_clips, wav_data_uri
from pipeline.reporting.figures.spectrogram import spectrogram
from pipeline.reporting.formatting import plain
from pipeline.reporting.sections.section import Section, render_template

# Of the clips of a kind; the folders hold fewer.
ALL_CLIPS = 10_000
KINDS = {"continuation": "Continuation", "unprompted": "From nothing"}


@dataclass(frozen=True)
class Bar:
    """A difference on an axis whose middle is none; positions in percent from the left, better to the right."""

    value: float
    band: tuple[float, float]


def comparison(found: Comparison, n_examples: int, title: str = "Comparison") -> Section:
    """Lay out a comparison.

    Args:
        found: what comparing came to.
        n_examples: of continuations, and of speech from nothing, to be heard side by side.
        title: of the section.
    """
    context = {
        "baseline": found.baseline.label,
        "contests": [_contest(contest, found.baseline.label) for contest in found.contests],
        "players": players(found, n_examples),
    }
    return Section(title, render_template("comparison.html.jinja", context))


def bar(outcome: Outcome) -> Bar | None:
    """Where a difference and its bounds stand; None where there are no bounds."""
    interval = outcome.difference.difference
    bounds = (interval.low, interval.value, interval.high)
    if not all(math.isfinite(bound) for bound in bounds):
        return None
    reach = max(abs(bound) for bound in bounds) or 1.0
    sign = -1 if outcome.measure.lower_is_better else 1
    low, value, high = (round(50 + 46 * sign * bound / reach, 2) for bound in bounds)
    return Bar(value, (min(low, high), round(abs(high - low), 2)))


def players(found: Comparison, n_examples: int) -> list[dict[str, Any]]:
    """Rows of clips: what was recorded, and what each model makes of it, or says from nothing."""
    by_model = [_clips(model.folder) for model in found.models]
    heard = [clip for clips in by_model for clip in clips.values()]
    if not heard:
        return []
    seconds, f_max = max(clip.seconds for clip in heard), min(clip.sample_rate for clip in heard) / 2
    rows = []
    for kind, title in KINDS.items():
        for number, pair in enumerate(_pairs(by_model, kind)[:n_examples], start=1):
            recorded = _recorded(by_model[0], pair)
            columns = [recorded] if kind == "continuation" and recorded[1] else []
            columns += [(m.label, clips.get((kind, pair))) for m, clips in zip(found.models, by_model, strict=True)]
            cells = [
                _cell(label, clip, f"side-{kind}-{number}-{column}", seconds, f_max)
                for column, (label, clip) in enumerate(columns)
            ]
            rows.append({"title": f"{title} {number}", "cells": cells})
    return rows


def _clips(folder: Path) -> dict[tuple[str, str | None], Clip]:
    """What can be heard of an evaluation, by kind and pair."""
    return {(clip.kind, clip.pair): clip for clip in load_clips(folder, ALL_CLIPS)}


def _pairs(by_model: Sequence[Mapping[tuple[str, str | None], Clip]], kind: str) -> list[str | None]:
    """The pairs of a kind: first those that can be heard of most models."""
    pairs = dict.fromkeys(pair for clips in by_model for clip_kind, pair in clips if clip_kind == kind)
    return sorted(pairs, key=lambda pair: -sum((kind, pair) in clips for clips in by_model))


def _recorded(clips: Mapping[tuple[str, str | None], Clip], pair: str | None) -> tuple[str, Clip | None]:
    """The recording that is continued, or what its codec makes of it where it was not kept."""
    real = clips.get(("real", pair))
    return ("Recorded", real) if real else ("Recorded, through the codec", clips.get(("codec", pair)))


def _cell(label: str, clip: Clip | None, name: str, seconds: float, f_max: float) -> dict[str, Any]:
    if clip is None:
        return {"title": label, "clip": None}
    return {
        "title": label,
        "clip": clip,
        "figure": spectrogram(clip, name, seconds, f_max),
        "player": wav_data_uri(clip),
    }


def _contest(contest: Contest, baseline: str) -> dict[str, Any]:
    return {
        "name": contest.model.label,
        "stamp": stamp(contest.verdict),
        "grade": grade(contest.verdict),
        "lead": lead(contest, baseline),
        "reasons": reasons(contest),
        "notes": contest.notes,
        "rows": [_row(outcome, outcome in contest.deciding) for outcome in contest.outcomes],
        "changed": [(name, plain(before), plain(after)) for name, (before, after) in contest.changed.items()],
    }


def _row(outcome: Outcome, decisive: bool) -> dict[str, Any]:
    measure, (a, b) = outcome.measure, values(outcome)
    return {
        "title": measure.title,
        "meaning": meaning(outcome),
        "baseline": a,
        "model": b,
        "difference": difference_value(outcome),
        "bounds": difference_bounds(outcome),
        "gauge": bar(outcome),
        "verdict": outcome.verdict,
        "grade": grade(outcome.verdict),
        "more": more(outcome),
        "decisive": decisive,
    }
