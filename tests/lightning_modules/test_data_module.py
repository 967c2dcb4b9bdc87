"""Packing: every token is an input exactly once an epoch, on any number of ranks."""

import numpy as np
import pytest
import torch

from lightning_modules.data_module import PackedDocuments, RankSlices


class NumberedDocuments:
    """Documents whose tokens are all different, so that each can be found again."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = np.array(lengths)
        ends = np.cumsum(self.lengths)
        self.documents = [np.arange(end - length, end) for length, end in zip(lengths, ends, strict=True)]

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.documents[index]


DOCUMENTS = NumberedDocuments([5, 17, 3, 40, 8, 1, 30])


@pytest.mark.parametrize("sequence_length", [4, 16, 104, 200])
@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_holds_every_token_once(sequence_length: int, epoch: int) -> None:
    windows = PackedDocuments(DOCUMENTS, sequence_length, lookahead=2, seed=0)
    seen = []
    for index in range(epoch * len(windows), (epoch + 1) * len(windows)):
        tokens, ids = windows[index]
        seen += tokens[:sequence_length][ids[:sequence_length] >= 0].tolist()
    assert sorted(seen) == list(range(104))


def test_a_window_looks_ahead_into_the_next_and_keeps_documents_apart() -> None:
    windows = PackedDocuments(DOCUMENTS, 10, lookahead=2, seed=0)
    for index in range(len(windows) - 1):
        (tokens, ids), (next_tokens, next_ids) = windows[index], windows[index + 1]
        assert torch.equal(tokens[10:], next_tokens[:2])
        assert torch.equal(ids[10:], next_ids[:2])
        same = ids[1:] == ids[:-1]
        assert torch.equal(tokens[1:][same & (ids[1:] >= 0)], tokens[:-1][same & (ids[1:] >= 0)] + 1)


def test_order_changes_with_the_epoch_and_repeats_with_the_seed() -> None:
    windows, again = (PackedDocuments(DOCUMENTS, 16, 1, seed=5) for _ in range(2))
    first = [windows[i].tokens.tolist() for i in range(len(windows))]
    second = [windows[i + len(windows)].tokens.tolist() for i in range(len(windows))]
    assert first != second
    assert [again[i + len(windows)].tokens.tolist() for i in range(len(windows))] == second


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_share_the_windows_without_overlap(world_size: int) -> None:
    batches = [list(RankSlices(6, 4, rank, world_size)) for rank in range(world_size)]
    together = sorted(index for rank in batches for index in rank)
    assert together == list(range(6 * 4 * world_size))
    # Going on from batch 2 takes up exactly where batch 2 would have been.
    resumed = [list(RankSlices(6, 4, rank, world_size, first_batch=2)) for rank in range(world_size)]
    assert [rank[8:] for rank in batches] == resumed


def test_no_tokens_is_an_error() -> None:
    with pytest.raises(ValueError, match="no tokens to train on"):
        PackedDocuments(NumberedDocuments([]), 4, 1, seed=0)
