"""What the headline numbers mean, in plain sentences."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.reporting.formatting import as_number, number, percent, short


@dataclass(frozen=True)
class Verdict:
    """Whether the flatness gate passed (None: it was not measured) and the reason in one sentence."""

    passed: bool | None
    sentence: str


def gate_verdict(metrics: Mapping[str, float], gate: Mapping[str, Any]) -> Verdict:
    """Explain the spectral-flatness gate.

    The verdict is the evaluation's own (`audio/flatness_gate`); `gate`, the configuration's limits (min_ratio,
    max_ratio, min_flatness, max_flatness), only serves to name the limit that was crossed.
    """
    outcome = metrics.get("audio/flatness_gate", math.nan)
    if math.isnan(outcome):
        return Verdict(None, "The spectral-flatness gate was not measured.")
    flatness = metrics.get("audio/flatness", math.nan)
    reference = metrics.get("audio/flatness_reference", math.nan)
    measured = f"The median spectral flatness of generated speech is {number(flatness)}"
    ratio = flatness / reference if reference > 0 else math.nan
    if not math.isnan(ratio):
        measured += f", {number(ratio, 2)} times that of the reference speech ({number(reference)})"
    if outcome >= 0.5:
        return Verdict(True, f"{measured}, {_accepted(gate)}.")
    return Verdict(False, f"{measured}: {_crossed(flatness, ratio, gate)}.")


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


def loss_sentence(metrics: Mapping[str, float]) -> str | None:
    """Compare the test loss with the per-codebook bigram; None when either was not measured."""
    loss, bigram = (metrics.get(key, math.nan) for key in ("eval/loss", "eval/loss_bigram"))
    if math.isnan(loss) or math.isnan(bigram):
        return None
    margin = bigram - loss
    if margin > 0:
        comparison = f"{number(margin)} below the bigram ({number(bigram, 4)}): it uses more than the previous token"
    else:
        comparison = (
            f"{number(-margin)} above the bigram ({number(bigram, 4)}): counting pairs of tokens would do as well"
        )
    return f"The test loss is {number(loss, 4)} nats per token, {comparison}."


def frechet_sentence(metrics: Mapping[str, float]) -> str | None:
    """Place the Fréchet distance of generated speech between real speech and random tokens; None if not measured."""
    keys = ("audio/fd", "audio/fd_reference", "audio/fd_unigram_random")
    distance, reference, random = (metrics.get(key, math.nan) for key in keys)
    if math.isnan(distance):
        return None
    clauses = []
    if reference > 0:
        clauses.append(
            f"{number(distance / reference, 2)} times that of real speech through the codec ({number(reference)})"
        )
    if distance < random:
        clauses.append(f"{percent(distance / random)} of that of random tokens ({number(random)})")
    elif distance >= random:
        clauses.append(f"no closer than random tokens ({number(random)})")
    comparison = f": {' and '.join(clauses)}" if clauses else ""
    return f"The Fréchet distance of generated speech is {number(distance)}{comparison}."
