"""Whether a model says what its training set says, word for word."""

import logging
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from pipeline.evaluation.clip import GENERATED
from pipeline.evaluation.findings import Findings
from pipeline.evaluation.subject import Subject
from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.repetition import longest_matches, without_holds

log = logging.getLogger(__name__)

HELD_OUT = "held_out"
# Of the training set, what is searched at most: five hours at 50 frames a second.
MAX_FRAMES = 1_000_000


def copying(subject: Subject) -> Findings:
    """The longest run of codes that each clip shares with the training set, beside held-out speech's own.

    Speech repeats itself without being copied: sentences of one template, digits, pauses. So held-out utterances, which
    cannot have been copied, say how long a run is nothing to wonder at.
    """
    searched = subject.train.excerpt(MAX_FRAMES * subject.vocabulary.n_codebooks)
    generated = [clip for clip in subject.clips_of(*GENERATED) if clip.codes is not None]
    owners = [(clip.kind, clip.number) for clip in generated] + [(HELD_OUT, i) for i in range(len(subject.test))]
    spoken = [coarse(clip.codes) for clip in generated if clip.codes is not None] + documents(subject.test)
    matches = longest_matches(spoken, documents(searched))
    rows = [
        {"kind": kind, "number": number, "longest_match": length, "train_document": document, "n_codes": len(codes)}
        for (kind, number), codes, (length, document) in zip(owners, spoken, matches, strict=True)
    ]
    longest = [length for length, _ in matches]
    metrics = copying_metrics(longest[: len(generated)], longest[len(generated) :])
    share = searched.n_tokens / subject.train.n_tokens
    if share < 1:
        log.info("Copying was looked for in the first %.0f %% of the training set.", 100 * share)
    return Findings(metrics | {"copying/searched": share}, {"copying.csv": rows})


def copying_metrics(generated: Sequence[int], held_out: Sequence[int]) -> dict[str, float]:
    """How long runs are, and the share of clips with a longer one than any held-out utterance."""
    if not generated:
        return {}
    return {
        "copying/longest_match": max(generated),
        "copying/longest_match_reference": max(held_out),
        "copying/median_match": float(np.median(generated)),
        "copying/median_match_reference": float(np.median(held_out)),
        "copying/copied": float(np.mean(np.asarray(generated) > max(held_out))),
    }


def coarse(codes: Tensor | np.ndarray) -> np.ndarray:
    """The coarsest codes of an utterance's [F, Q], each held one once."""
    return without_holds(np.asarray(codes)[:, 0])


def documents(split: TokenDataset) -> list[np.ndarray]:
    """The coarsest codes of every document, each held one once."""
    return [coarse(split.vocabulary.tokens_to_codes(split[i])) for i in range(len(split))]
