"""Where judges that were trained elsewhere place the model, between junk and real speech through the codec."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from pipeline.reporting.formatting import percent
from pipeline.reporting.judged import JudgedBody
from pipeline.reporting.verdict.judgement import Grade, Judgement

JUDGES = "Judges"
MODEL, SPEECH, JUNK = "generated", "codec", "junk"
# As the evaluation has it: who prefers real speech less often cannot tell, and is not asked.
TELLS = 0.9
# Of the way from junk to real speech, at the least.
FAR_ENOUGH = 1 / 3


@dataclass(frozen=True)
class Place:
    """How far the model has come from junk, 0, to real speech through the codec, 1; and at the least."""

    value: float
    least: float


def places(bodies: Mapping[tuple[str, str], Mapping[str, JudgedBody]]) -> dict[str, Place]:
    """Where every judge that can tell junk from speech places the model: the median of those measures of its."""
    found: dict[str, list[Place]] = {}
    for (judge, _), signals in bodies.items():
        if {MODEL, SPEECH, JUNK} <= signals.keys() and signals[JUNK].separation >= TELLS:
            found.setdefault(judge, []).append(_place(signals[MODEL], signals[JUNK].value, signals[SPEECH].value))
    return {judge: middle(measured) for judge, measured in found.items()}


def middle(found: list[Place]) -> Place:
    """The median of places."""
    return Place(median(place.value for place in found), median(place.least for place in found))


def judge_judges(bodies: Mapping[tuple[str, str], Mapping[str, JudgedBody]]) -> Judgement | None:
    """Grade the median of the judges' places; None where nobody is there who can tell."""
    by_judge = places(bodies)
    if not by_judge:
        return None
    place = middle(list(by_judge.values()))
    each = ", ".join(f"{judge} {percent(its.value)}" for judge, its in sorted(by_judge.items()))
    sentence = (
        f"Judges trained elsewhere place the model {percent(place.value)} of the way from junk to real speech through "
        f"the codec, {percent(place.least)} at the least ({each})"
    )
    if place.least <= 0:
        return Judgement(JUDGES, Grade.FAILED, f"{sentence}: they do not tell it from junk.")
    if place.least < FAR_ENOUGH:
        return Judgement(JUDGES, Grade.WEAK, f"{sentence}: nearer to junk.")
    return Judgement(JUDGES, Grade.PASSED, f"{sentence}.")


def _place(model: JudgedBody, junk: float, speech: float) -> Place:
    ends = [(end - junk) / (speech - junk) for end in (model.value, model.low, model.high)]
    return Place(ends[0], min(end for end in ends if end == end))
