"""Packing: no document is cut that fits, every token is an input exactly once an epoch, at its own position."""

import numpy as np
import pytest
import torch

from lightning_modules.batch import Batch, are_targets
from lightning_modules.data_module import Collate
from lightning_modules.packing import PackedDocuments, best_fit_decreasing
from tests.lightning_modules.documents import numbered_documents

LENGTHS = [5, 17, 3, 40, 8, 1, 30]
DOCUMENTS = numbered_documents(LENGTHS)
FIRST_TOKENS = np.cumsum(LENGTHS) - LENGTHS


def best_fit_item_by_item(lengths: list[int], capacity: int) -> list[int]:
    """As the textbook has it; how many bins of each room are used tells, not their numbers."""
    rooms: list[int] = []
    for length in lengths:
        fitting = [i for i, room in enumerate(rooms) if room >= length]
        if fitting:
            rooms[min(fitting, key=lambda i: rooms[i])] -= length
        else:
            rooms.append(capacity - length)
    return sorted(rooms)


@pytest.mark.parametrize("capacity", [20, 37, 64, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_bins_are_those_of_best_fit_item_by_item(capacity: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = np.sort(rng.integers(1, min(capacity, 50) + 1, 200))[::-1]
    bins = best_fit_decreasing(lengths, capacity)
    used = np.bincount(bins, weights=lengths).astype(int)
    assert used.min() > 0
    assert used.max() <= capacity
    assert sorted((capacity - used).tolist()) == best_fit_item_by_item(lengths.tolist(), capacity)


def test_millions_of_documents_are_packed_class_by_class() -> None:
    lengths = np.sort(np.random.default_rng(0).integers(10, 2000, 300_000))[::-1]
    used = np.bincount(best_fit_decreasing(lengths, 4096), weights=lengths)
    assert used.max() <= 4096
    assert used.mean() > 0.999 * 4096


@pytest.mark.parametrize("sequence_length", [4, 16, 40, 104, 200])
@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_holds_every_token_once_and_cuts_nothing_that_fits(sequence_length: int, epoch: int) -> None:
    windows = PackedDocuments(DOCUMENTS, sequence_length, lookahead=2, seed=0)
    assert windows.n_cut == sum(length > sequence_length for length in LENGTHS)
    assert windows.longest_stretch == min(sequence_length, 40)
    seen, targets, whole = [], [], 0
    for index in range(epoch * len(windows), (epoch + 1) * len(windows)):
        tokens, ids, positions, *_ = windows[index]
        is_input = ids[:sequence_length] >= 0
        seen += tokens[:sequence_length][is_input].tolist()
        targets += tokens[1 : sequence_length + 1][are_targets(ids[None], sequence_length, 1)[0]].tolist()
        for number in ids[ids >= 0].unique():
            piece, places = tokens[ids == number].tolist(), positions[ids == number].tolist()
            document = int(np.searchsorted(FIRST_TOKENS, piece[0], side="right")) - 1
            # Pieces keep the positions that they have in their document.
            assert [token - FIRST_TOKENS[document] for token in piece] == places
            assert places[0] == 0 or LENGTHS[document] > sequence_length
            whole += len(piece) == LENGTHS[document]
    assert sorted(seen) == list(range(104))
    assert sorted(targets) == sorted(set(range(104)) - set(FIRST_TOKENS.tolist()))
    assert whole >= sum(length <= sequence_length for length in LENGTHS)


def test_what_windows_cannot_teach_is_said() -> None:
    cut, long, fitting = (PackedDocuments(DOCUMENTS, length, 1, seed=0) for length in (16, 1000, 64))
    assert "3 of 7 documents are longer than trainer.sequence_length (16)" in str(cut.describe_cuts())
    assert cut.describe_shortness() is None
    sentence = str(long.describe_shortness())
    assert "The longest document has 40 tokens, and trainer.sequence_length is 1,000" in sentence
    assert long.describe_cuts() is None
    assert fitting.describe_cuts() is fitting.describe_shortness() is None


def test_a_piece_looks_ahead_to_the_targets_beyond_its_window() -> None:
    windows = PackedDocuments(numbered_documents([10]), 4, lookahead=3, seed=None)
    assert [windows[i].tokens.tolist() for i in range(3)] == [
        [8, 9, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5, 6], [4, 5, 6, 7, 8, 9, 0]
    ]  # fmt: skip
    assert windows[0].positions.tolist()[:2] == [8, 9]
    assert windows[2].document_ids.tolist() == [0] * 6 + [-1]


def test_order_changes_with_the_epoch_and_repeats_with_the_seed() -> None:
    windows, again = (PackedDocuments(DOCUMENTS, 16, 1, seed=5) for _ in range(2))
    first = [windows[i].tokens.tolist() for i in range(len(windows))]
    second = [windows[i + len(windows)].tokens.tolist() for i in range(len(windows))]
    assert first != second
    assert [again[i + len(windows)].tokens.tolist() for i in range(len(windows))] == second


@pytest.mark.parametrize("sequence_length", [4, 16, 64])
@pytest.mark.parametrize("lookahead", [1, 2, 4])
def test_targets_are_counted_before_the_windows_are_read(sequence_length: int, lookahead: int) -> None:
    windows = PackedDocuments(DOCUMENTS, sequence_length, lookahead, seed=2)
    for first, n_windows in ((0, 1), (1, 3), (len(windows) - 1, 2 * len(windows) + 3)):
        read = [windows[i] for i in range(first, first + n_windows)]
        batch = Collate()(read)
        counted = Batch.whole_step(batch.tokens, batch.document_ids, lookahead - 1).n_targets
        torch.testing.assert_close(batch.n_targets, counted)
        torch.testing.assert_close(windows.mean_targets(first, n_windows), counted.mean(dim=0))


def test_no_tokens_is_an_error() -> None:
    with pytest.raises(ValueError, match="no tokens to train on"):
        PackedDocuments(numbered_documents([]), 4, 1, seed=0)
