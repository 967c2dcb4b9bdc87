"""Whether speech moves, differs from clip to clip, and stays speech: what averages over spectra need not notice."""

import math
from collections.abc import Mapping

from pipeline.reporting.formatting import percent
from pipeline.reporting.verdict.judgement import Grade, Judgement

VARIETY = "Variety"
# Below this share of what real speech has, something has collapsed.
COLLAPSED = 0.5
# Measure, beside which `_reference` is real speech's own: what it is called, and what a collapse sounds like.
MEASURES = {
    "audio/mel_flux_db": ("the spectrum's movement", "one sound is held"),
    "audio/modulation_depth": ("the rise and fall of loudness", "there is nothing like syllables"),
    "diversity/effective_share": ("the share of clips that differ", "the model always says the same"),
    "diversity/distinct": ("the share of runs of codes that differ", "it goes round in circles"),
}
# The share of clips copied from the training set that leaves a doubt.
COPIES = 0.1


def judge_variety(metrics: Mapping[str, float]) -> Judgement:
    """Hold movement and variety against real speech's own, and see what long speech comes to."""
    shares = {
        measure: metrics[measure] / metrics[f"{measure}_reference"]
        for measure in MEASURES
        if metrics.get(f"{measure}_reference", math.nan) > 0 and not math.isnan(metrics.get(measure, math.nan))
    }
    if not shares:
        return Judgement(VARIETY, Grade.UNMEASURED, "Whether speech moves and varies was not measured.")
    least = min(shares, key=lambda measure: shares[measure])
    what, meaning = MEASURES[least]
    if shares[least] < COLLAPSED:
        sentence = f"{what.capitalize()} is {percent(shares[least])} of that in real speech: {meaning}."
        return Judgement(VARIETY, Grade.FAILED, sentence)
    if doubt := _doubt(metrics):
        return Judgement(VARIETY, Grade.WEAK, doubt)
    sentence = f"Nothing has collapsed: the lowest measure, {what}, is {percent(shares[least])} of that in real speech."
    return Judgement(VARIETY, Grade.PASSED, sentence)


def _doubt(metrics: Mapping[str, float]) -> str:
    """What is wrong with speech that may not end, or with speech that was heard before; empty where nothing is."""
    speech, again, copied = (
        metrics.get(key, math.nan) for key in ("long/speech_at_end", "long/repetition_at_end", "copying/copied")
    )
    if speech < COLLAPSED:
        return f"Speech that may not end does not last: {percent(speech)} of its last quarter is speech."
    if again > COLLAPSED:
        return f"Speech that may not end goes round in circles: {percent(again)} of its last quarter was said before."
    if copied > COPIES:
        return f"{percent(copied)} of all clips repeat the training set for longer than any held-out utterance does."
    return ""
