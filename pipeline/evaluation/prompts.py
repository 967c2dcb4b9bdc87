"""Which held-out utterances are continued."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pipeline.tokens.dataset import TokenDataset


@dataclass(frozen=True)
class Prompt:
    """A held-out utterance whose beginning is continued: its document number, and its codes [F, Q]."""

    document: int
    codes: Tensor


def choose_prompts(test: TokenDataset, first: list[int], n: int, n_frames: int, seed: int) -> list[Prompt]:
    """Choose `n` test utterances longer than the `n_frames` frames of a prompt.

    Args:
        test: held-out documents.
        first: documents that are taken before others, as far as they are long enough.
        n: how many; a small test split gives the same utterances again.
        n_frames: length of a prompt.
        seed: of the choice.

    Raises:
        ValueError: when no utterance is long enough.
    """
    shortest = n_frames * test.vocabulary.n_codebooks + 2
    long_enough = [int(i) for i in np.flatnonzero(test.lengths > shortest)]
    if not long_enough:
        raise ValueError(
            f"No utterance of {test.folder} is longer than a prompt of {n_frames} frames; "
            "lower evaluate.prompt_seconds."
        )
    others = np.random.default_rng(seed).permutation([i for i in long_enough if i not in first]).astype(int).tolist()
    order = [i for i in first if i in long_enough] + others
    chosen = [order[i % len(order)] for i in range(n)]
    return [Prompt(document, test.vocabulary.tokens_to_codes(test[document])) for document in chosen]
