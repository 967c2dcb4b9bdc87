"""Whether generated audio is as flat as speech."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Whether the gate lets the audio pass, and why (not), in one sentence."""

    passed: bool
    reason: str


@dataclass(frozen=True)
class FlatnessGate:
    """Limits on the median spectral flatness of generated utterances.

    Attributes:
        min_ratio: the least flatness, as a multiple of the reference corpus's own median.
        max_ratio: the greatest, likewise.
        min_flatness: below this it is a tone, whatever the reference.
        max_flatness: above this it is noise, whatever the reference.
    """

    min_ratio: float
    max_ratio: float
    min_flatness: float
    max_flatness: float

    def __post_init__(self) -> None:
        if not 0 < self.min_ratio <= 1 <= self.max_ratio:
            raise ValueError(
                f"min_ratio={self.min_ratio} and max_ratio={self.max_ratio} shut out the "
                "reference itself; set the first between 0 and 1 and the second to 1 or more."
            )
        if not 0 <= self.min_flatness < self.max_flatness <= 1:
            raise ValueError(
                f"min_flatness={self.min_flatness} and max_flatness={self.max_flatness} leave "
                "no range; set them so that 0 <= min_flatness < max_flatness <= 1."
            )

    def judge(self, median: float, reference: float) -> Verdict:
        """Judge the median flatness of generated utterances against that of the reference corpus.

        A median that could not be measured (NaN: all silent or too short) fails, and so does any median when the
        reference was not measured.
        """
        if math.isnan(median):
            return Verdict(False, "no generated utterance was long and loud enough to measure its flatness")
        if median < self.min_flatness:
            return Verdict(False, f"flatness {median:.3g} is below {self.min_flatness:g}: a tone, not speech")
        if median > self.max_flatness:
            return Verdict(False, f"flatness {median:.3g} is above {self.max_flatness:g}: noise, not speech")
        if not reference > 0:
            return Verdict(False, "the reference corpus has no measured flatness; prepare it again from audible speech")
        ratio = median / reference
        passed = self.min_ratio <= ratio <= self.max_ratio
        return Verdict(
            passed,
            f"flatness {median:.3g} is {ratio:.2f} times the reference's {reference:.3g}, "
            f"{'within' if passed else 'outside'} {self.min_ratio:g} to {self.max_ratio:g}",
        )
