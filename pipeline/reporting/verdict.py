"""What the headline numbers mean, in plain sentences, and which of them is the weakest."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pipeline.reporting.formatting import as_number, number, percent, short


class Grade(IntEnum):
    """How good a measurement is, the weakest first."""

    FAILED = 0
    WEAK = 1
    UNMEASURED = 2
    PASSED = 3


@dataclass(frozen=True)
class Judgement:
    """One measurement's grade, and the reason in one sentence."""

    grade: Grade
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """All judgements, the weakest first: the headline is as good as that one and no better."""

    judgements: tuple[Judgement, ...]

    @property
    def grade(self) -> Grade:
        """The weakest grade."""
        return self.judgements[0].grade

    @property
    def stamp(self) -> str:
        """The grade in a word or two."""
        if all(judgement.grade is Grade.UNMEASURED for judgement in self.judgements):
            return "Not measured"
        return {
            Grade.FAILED: "Failed",
            Grade.WEAK: "Weak",
            Grade.UNMEASURED: "Not all measured",
            Grade.PASSED: "Passed",
        }[self.grade]


def judge(metrics: Mapping[str, float], gate: Mapping[str, Any]) -> Verdict:
    """Judge test loss, Fréchet distance and flatness, and put the weakest first.

    Args:
        metrics: the evaluation's.
        gate: the configuration's limits of the flatness gate, which name the limit that was crossed.
    """
    judgements = (judge_loss(metrics), judge_distance(metrics), judge_flatness(metrics, gate))
    return Verdict(tuple(sorted(judgements, key=lambda judgement: judgement.grade)))


def judge_loss(metrics: Mapping[str, float]) -> Judgement:
    """Place the test loss among what guessing and counting reach."""
    if "eval/loss" not in metrics:
        return Judgement(Grade.UNMEASURED, "The test loss was not measured.")
    loss = metrics["eval/loss"]
    if not math.isfinite(loss):
        return Judgement(Grade.FAILED, "The test loss is not a number: the model computes nothing that can be used.")
    uniform, unigram, bigram = (metrics.get(f"eval/loss_{name}", math.nan) for name in ("uniform", "unigram", "bigram"))
    measured = f"The test loss is {number(loss, 4)} nats per token"
    # A comparison with an absent baseline (NaN) is false, so such a baseline decides nothing.
    if loss > uniform:
        return Judgement(Grade.FAILED, f"{measured}, worse than guessing ({number(uniform, 4)}).")
    if loss >= unigram or loss == uniform:
        baseline = f"counting how often each token occurs ({number(unigram, 4)})"
        return Judgement(Grade.FAILED, f"{measured}, no better than {baseline}.")
    if loss >= bigram:
        return Judgement(Grade.WEAK, f"{measured}, no better than counting pairs of tokens ({number(bigram, 4)}).")
    if loss < bigram:
        return Judgement(
            Grade.PASSED,
            f"{measured}, {number(bigram - loss)} below counting pairs of tokens ({number(bigram, 4)}): "
            "the model uses more than the previous token.",
        )
    return Judgement(Grade.UNMEASURED, f"{measured}, with no baseline to hold it against.")


def judge_distance(metrics: Mapping[str, float]) -> Judgement:
    """Place the Fréchet distance of generated speech between real speech and random tokens."""
    if "audio/fd" not in metrics:
        return Judgement(Grade.UNMEASURED, "The Fréchet distance was not measured.")
    distance, reference, random = (
        metrics.get(key, math.nan) for key in ("audio/fd", "audio/fd_reference", "audio/fd_unigram_random")
    )
    if math.isnan(distance):
        return Judgement(Grade.FAILED, "The Fréchet distance is not a number: the generated audio cannot be measured.")
    measured = f"The Fréchet distance of generated speech is {number(distance)}"
    if distance >= random:
        return Judgement(Grade.FAILED, f"{measured}, no closer to real speech than random tokens ({number(random)}).")
    if not (reference > 0 and distance < random):
        return Judgement(Grade.UNMEASURED, f"{measured}, with too little to hold it against.")
    placed = (
        f"{number(distance / reference, 2)} times that of real speech through the codec ({number(reference)}) and "
        f"{percent(distance / random)} of that of random tokens ({number(random)})"
    )
    # Distances span decades: halfway is the geometric mean.
    if distance > math.sqrt(reference * random):
        return Judgement(Grade.WEAK, f"{measured}, nearer to random tokens than to speech: {placed}.")
    return Judgement(Grade.PASSED, f"{measured}: {placed}.")


def judge_flatness(metrics: Mapping[str, float], gate: Mapping[str, Any]) -> Judgement:
    """Explain the spectral-flatness gate.

    The verdict is the evaluation's own (`audio/flatness_gate`); `gate`, the configuration's limits (min_ratio,
    max_ratio, min_flatness, max_flatness), only serves to name the limit that was crossed.
    """
    outcome = metrics.get("audio/flatness_gate", math.nan)
    if math.isnan(outcome):
        return Judgement(Grade.UNMEASURED, "The spectral flatness was not measured.")
    flatness = metrics.get("audio/flatness", math.nan)
    reference = metrics.get("audio/flatness_reference", math.nan)
    measured = f"The median spectral flatness of generated speech is {number(flatness)}"
    ratio = flatness / reference if reference > 0 else math.nan
    if not math.isnan(ratio):
        measured += f", {number(ratio, 2)} times that of the reference speech ({number(reference)})"
    if outcome >= 0.5:
        return Judgement(Grade.PASSED, f"{measured}, {_accepted(gate)}.")
    return Judgement(Grade.FAILED, f"{measured}: {_crossed(flatness, ratio, gate)}.")


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
