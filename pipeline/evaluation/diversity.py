"""How different from each other the clips are that begin from nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from pipeline.evaluation.clip import CODEC, UNIGRAM_RANDOM, UNPROMPTED, Clip
from pipeline.evaluation.copying import coarse
from pipeline.evaluation.findings import Findings
from pipeline.evaluation.subject import Subject
from pipeline.tokens.repetition import distinct_share, effective_number

# Codes of a run that makes two clips alike, and of one that counts as said again.
ALIKE, AGAIN = 2, 4


@dataclass(frozen=True)
class Diversity:
    """How different clips are.

    Attributes:
        effective_share: the effective number of different clips, of their number (see `effective_number`).
        distinct: how many different runs of four codes there are, of all.
    """

    effective_share: float
    distinct: float

    @classmethod
    def of(cls, clips: Sequence[np.ndarray]) -> "Diversity":
        """Measure the coarsest codes [N] of clips."""
        return cls(effective_number(clips, ALIKE) / len(clips), distinct_share(clips, AGAIN))


def diversity(subject: Subject) -> Findings:
    """The diversity of unprompted speech, beside as many held-out utterances and as many clips of random tokens.

    Random tokens are the most diverse of all: the figures tell a model that always says the same from one that does
    not, and nothing of how well it speaks.
    """
    spoken = {kind: coarse_codes(subject.clips_of(kind)) for kind in (CODEC, UNPROMPTED, UNIGRAM_RANDOM)}
    measured = compare(spoken)
    metrics = {
        f"diversity/{measure}{suffix}": value
        for kind, suffix in ((UNPROMPTED, ""), (CODEC, "_reference"))
        if kind in measured
        for measure, value in asdict(measured[kind]).items()
    }
    return Findings(metrics, {"diversity.csv": [{"signal": k} | asdict(found) for k, found in measured.items()]})


def compare(spoken: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Diversity]:
    """Measure bodies of speech, of each as many clips as the smallest has; nothing where there is no second clip."""
    n = min(map(len, spoken.values()))
    return {kind: Diversity.of(clips[:n]) for kind, clips in spoken.items()} if n > 1 else {}


def coarse_codes(clips: Sequence[Clip]) -> list[np.ndarray]:
    """The coarsest codes of clips, each held one once; of a document that was taken several times, once."""
    once = {clip.number if clip.document is None else clip.document: clip for clip in clips}
    return [coarse(clip.codes) for clip in once.values() if clip.codes is not None]
