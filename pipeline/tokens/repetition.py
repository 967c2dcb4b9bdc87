"""Sequences of codes that say the same again: within themselves, among each other, and after a corpus.

Codes are those of the coarsest codebook, which follows what is said; the finer ones differ wherever it is said twice. A
code that is held counts once, so that neither tempo nor a pause makes a difference.
"""

from collections.abc import Sequence

import numpy as np


def without_holds(codes: np.ndarray) -> np.ndarray:
    """The codes [F] of successive frames, each held one once [N]."""
    return codes[np.diff(codes, prepend=-1) != 0]


def ngrams(codes: np.ndarray, n: int) -> np.ndarray:
    """All runs of `n` successive codes, [N - n + 1, n]; none where there are fewer."""
    if len(codes) < n:
        return np.empty((0, n), dtype=codes.dtype)
    return np.lib.stride_tricks.sliding_window_view(codes, n)


def said_before(codes: np.ndarray, n: int) -> np.ndarray:
    """Of each run of `n` codes, whether it has occurred earlier: bool [N - n + 1]."""
    runs = ngrams(codes, n)
    if not len(runs):
        return np.zeros(0, dtype=bool)
    _, first, inverse = np.unique(runs, axis=0, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)] < np.arange(len(runs))


def distinct_share(sequences: Sequence[np.ndarray], n: int) -> float:
    """How many different runs of `n` codes there are, of all in the sequences; NaN where there is none."""
    runs = np.concatenate([ngrams(sequence, n) for sequence in sequences])
    return len(np.unique(runs, axis=0)) / len(runs) if len(runs) else float("nan")


def effective_number(sequences: Sequence[np.ndarray], n: int) -> float:
    """How many different sequences there are in effect: 1 where all are alike, their number where none is.

    The Vendi score (Friedman and Dieng, arXiv 2210.02410) under the cosine between counts of runs of `n` codes: the
    exponential of the entropy of the similarity matrix's eigenvalues. Sequences too short for a run do not count.
    """
    rows = [ngrams(sequence, n) for sequence in sequences]
    lengths = [len(runs) for runs in rows if len(runs)]
    if not lengths:
        return float("nan")
    _, run = np.unique(np.concatenate(rows), axis=0, return_inverse=True)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    counts = np.zeros((len(lengths), run.max() + 1))
    np.add.at(counts, (owner, run.reshape(-1)), 1)
    counts /= np.linalg.norm(counts, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(counts @ counts.T / len(lengths))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def longest_matches(sequences: Sequence[np.ndarray], corpus: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Of each sequence, the longest run of codes that stands in a document of the corpus too.

    All suffixes are sorted by doubling: rank k of a position names the 2^k codes from there on. A suffix shares most
    with its neighbours in that order.

    Args:
        sequences: codes [N] of each, 0 or above.
        corpus: codes of each document.

    Returns:
        (codes of the run, number of the document) of each sequence; (0, -1) where nothing matches.
    """
    documents = [*corpus, *sequences]
    # A separator of its own behind each document: no match crosses it.
    text = np.concatenate([np.append(codes, -1 - i) for i, codes in enumerate(documents)])
    owner = np.repeat(np.arange(len(documents)), [len(codes) + 1 for codes in documents])
    ranks = _ranks_by_doubling(text, max(map(len, sequences), default=0))
    order = np.argsort(ranks[-1], kind="stable")
    is_corpus = owner[order] < len(corpus)
    places = np.arange(len(order))
    before = np.maximum.accumulate(np.where(is_corpus, places, -1))
    after = np.minimum.accumulate(np.where(is_corpus, places, len(order))[::-1])[::-1]
    best = [(0, -1)] * len(sequences)
    ours = places[~is_corpus]
    for neighbours in (before[ours], after[ours]):
        found = (neighbours >= 0) & (neighbours < len(order))
        ends, starts = order[ours[found]], order[neighbours[found]]
        shared = _shared_lengths(ranks, ends, starts)
        for sequence in range(len(sequences)):
            of_it = np.flatnonzero(owner[ends] == len(corpus) + sequence)
            if len(of_it):
                longest = of_it[shared[of_it].argmax()]
                if shared[longest] > best[sequence][0]:
                    best[sequence] = int(shared[longest]), int(owner[starts[longest]])
    return best


def _ranks_by_doubling(text: np.ndarray, longest: int) -> list[np.ndarray]:
    """Ranks of the 1, 2, 4 … codes from each position on, up to `longest` or until all differ."""
    rank = np.unique(text, return_inverse=True)[1]
    ranks = [rank]
    width = 1
    while width < longest and rank.max() + 1 < len(text):
        later = np.zeros_like(rank)
        later[:-width] = rank[width:] + 1
        rank = np.unique(rank * (len(text) + 1) + later, return_inverse=True)[1]
        ranks.append(rank)
        width *= 2
    return ranks


def _shared_lengths(ranks: Sequence[np.ndarray], first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How many codes from the positions `first` and `second` on are the same."""
    shared = np.zeros(len(first), dtype=np.int64)
    n = len(ranks[0])
    for level in range(len(ranks) - 1, -1, -1):
        here, there = np.minimum(first + shared, n - 1), np.minimum(second + shared, n - 1)
        shared += np.where(ranks[level][here] == ranks[level][there], 2**level, 0)
    return shared
