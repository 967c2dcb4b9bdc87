"""How the model's speech sounds, beside real speech and what is none."""

import math
from collections.abc import Mapping
from typing import Any

from pipeline.reporting.formatting import as_number, number, percent, short
from pipeline.reporting.verdict.judgement import Grade, Judgement, read_interval, told
from pipeline.statistics.interval import Interval

DISTANCE, FLATNESS = "Fréchet distance", "Spectral flatness"


def judge_distance(metrics: Mapping[str, float]) -> Judgement:
    """Place the upper bound of generated speech's Fréchet distance between real speech and random tokens."""
    if "audio/fd" not in metrics:
        return Judgement(DISTANCE, Grade.UNMEASURED, "The Fréchet distance was not measured.")
    distance, reference, random = (
        read_interval(metrics, f"audio/{name}") for name in ("fd", "fd_reference", "fd_unigram_random")
    )
    if math.isnan(distance.value):
        sentence = "The Fréchet distance is not a number: the generated audio cannot be measured."
        return Judgement(DISTANCE, Grade.FAILED, sentence)
    measured = f"The Fréchet distance of generated speech is {told(distance)}"
    if distance.high >= random.low:
        how = "no closer" if distance.value >= random.value else "not certainly closer"
        sentence = f"{measured}, {how} to real speech than random tokens, {told(random)}."
        return Judgement(DISTANCE, Grade.FAILED, sentence)
    floor = floor_of(reference)
    if not (floor > 0 and distance.high < random.low):
        return Judgement(DISTANCE, Grade.UNMEASURED, f"{measured}, with too little to hold it against.")
    placed = (
        f"{percent(distance.value / random.value)} of that of random tokens ({number(random.value)}), where real "
        f"speech through the codec has {told(reference)}"
    )
    # Distances span decades: halfway is the geometric mean.
    if distance.high > math.sqrt(floor * random.value):
        return Judgement(DISTANCE, Grade.WEAK, f"{measured}, nearer to random tokens than to speech: {placed}.")
    return Judgement(DISTANCE, Grade.PASSED, f"{measured}, {placed}.")


def floor_of(reference: Interval) -> float:
    """How far real speech lies from itself: where that may be nothing, half of what it may be at most."""
    return max(reference.value, reference.high / 2) if reference.low <= 0 else reference.value


def judge_flatness(metrics: Mapping[str, float], gate: Mapping[str, Any]) -> Judgement:
    """Explain the spectral-flatness gate.

    The verdict is the evaluation's own (`audio/flatness_gate`); `gate`, the configuration's limits (min_ratio,
    max_ratio, min_flatness, max_flatness), only serves to name the limit that was crossed.
    """
    outcome = metrics.get("audio/flatness_gate", math.nan)
    if math.isnan(outcome):
        return Judgement(FLATNESS, Grade.UNMEASURED, "The spectral flatness was not measured.")
    interval = read_interval(metrics, "audio/flatness")
    flatness = interval.value
    reference = metrics.get("audio/flatness_reference", math.nan)
    measured = f"The median spectral flatness of generated speech is {told(interval)}"
    ratio = flatness / reference if reference > 0 else math.nan
    if not math.isnan(ratio):
        measured += f", {number(ratio, 2)} times that of the reference speech ({number(reference)})"
    if outcome < 0.5:
        return Judgement(FLATNESS, Grade.FAILED, f"{measured}: {_crossed(flatness, ratio, gate)}.")
    accepted = accepted_flatness(reference, gate)
    if accepted and (interval.low < accepted[0] or interval.high > accepted[1]):
        return Judgement(FLATNESS, Grade.WEAK, f"{measured}, not certainly {_accepted(gate)}.")
    return Judgement(FLATNESS, Grade.PASSED, f"{measured}, {_accepted(gate)}.")


def accepted_flatness(reference: float, gate: Mapping[str, Any]) -> tuple[float, float] | None:
    """The range of median flatness that the gate accepts, or None when its limits are not known."""
    if math.isnan(reference) or gate.get("min_ratio") is None or gate.get("max_ratio") is None:
        return None
    low, high = gate["min_ratio"] * reference, gate["max_ratio"] * reference
    return max(low, gate.get("min_flatness") or 0.0), min(high, gate.get("max_flatness") or 1.0)


def _accepted(gate: Mapping[str, Any]) -> str:
    low, high = as_number(gate.get("min_ratio")), as_number(gate.get("max_ratio"))
    if math.isnan(low) or math.isnan(high):
        return "within the accepted range"
    return f"within the accepted {short(low)} to {short(high)} times"


def _crossed(flatness: float, ratio: float, gate: Mapping[str, Any]) -> str:
    """Name the first limit that the measurement crossed, and what that sounds like."""
    limits = {name: as_number(gate.get(name)) for name in ("min_flatness", "max_flatness", "min_ratio", "max_ratio")}
    if math.isnan(flatness):
        return "the generated audio was silent or too short to measure"
    # A comparison with an absent limit (NaN) is false, so such a limit names nothing.
    if flatness < limits["min_flatness"]:
        return f"below {short(limits['min_flatness'])}, it is a tone or beeps rather than speech"
    if flatness > limits["max_flatness"]:
        return f"above {short(limits['max_flatness'])}, it is noise rather than speech"
    if ratio < limits["min_ratio"]:
        return f"more tonal than the accepted {short(limits['min_ratio'])} times"
    if ratio > limits["max_ratio"]:
        return f"noisier than the accepted {short(limits['max_ratio'])} times"
    return "outside the accepted range"
