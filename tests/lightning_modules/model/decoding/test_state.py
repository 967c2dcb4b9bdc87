"""What rows become when tokens are added to them."""

import torch

from lightning_modules.model.decoding.state import DRAFTING, DRAWING, RowState

END = 9


def two_rows(width: int) -> RowState:
    """Two of three rows seated, of two tokens and of four, with room for three more each."""
    state = RowState.empty(3, 8, width, torch.device("cpu"))
    lengths = torch.tensor([2, 4])
    prompts = torch.tensor([[1, 2, 0, 0], [3, 4, 5, 6]])
    state.seat(torch.tensor([2, 0]), prompts, lengths, torch.ones(2).long(), lengths + 3, torch.tensor([7, 8]))
    return state


def test_rows_take_what_counts_up_to_their_ends_and_limits() -> None:
    state = two_rows(width=3)
    state.add(torch.tensor([[1, END, 2], [1, 1, 1], [5, 6, 7]]), torch.tensor([3, 3, 2]), END)
    # How many were added, offered, and may follow: row 0 has ended, nobody sits in row 1, row 2 goes on.
    assert state.said.tolist() == [[2, 3, 0, 1, END, 2], [0, 3, 0, 1, 1, 1], [2, 2, 1, 5, 6, 7]]
    assert state.lengths.tolist() == [6, 1, 4]
    state.add(torch.tensor([[1, 1, 1], [1, 1, 1], [END, 8, 8]]), torch.tensor([3, 3, 3]), END)
    assert state.said[:, :3].tolist() == [[0, 3, 0], [0, 3, 0], [1, 3, 0]]
    assert state.tokens[0, :6].tolist() == [3, 4, 5, 6, 1, END]
    assert state.tokens[2, :5].tolist() == [1, 2, 5, 6, END]
    assert state.last_tokens()[::2, 0].tolist() == [END, END]


def test_an_end_that_does_not_count_ends_nothing() -> None:
    state = two_rows(width=3)
    state.add(torch.tensor([[1, END, 2], [1, 1, 1], [5, 6, 7]]), torch.tensor([1, 1, 3]), END)
    assert state.said[:, :3].tolist() == [[1, 1, 2], [0, 1, 0], [3, 3, 0]]


def test_the_first_rows_are_the_same_memory() -> None:
    state = two_rows(width=1)
    state.first(1).add(torch.tensor([[7]]), torch.ones(1).long(), None)
    assert state.lengths.tolist() == [5, 1, 2]
    assert state.tokens[0, 4] == 7
    assert state.said[0].tolist() == [1, 1, 2, 7]


def test_whoever_takes_a_seat_brings_numbers_of_their_own() -> None:
    state = two_rows(width=1)
    before = state.chances.clone()
    state.seat(*(torch.tensor([value]) for value in (2, [5], 1, 1, 4, 8)))
    assert torch.equal(state.chances[:, 2], state.chances[:, 0])
    assert torch.equal(state.chances[:, :2], before[:, :2])
    places = torch.tensor([[0], [1], [2]])
    assert state.chances_of(DRAFTING, places)[2, 0] == state.chances[DRAFTING, 2, 2]
    assert not torch.equal(state.chances[DRAFTING, 0], state.chances[DRAWING, 0])


def test_a_window_moves_only_in_a_row_that_goes_on() -> None:
    state = two_rows(width=1)
    state.add(torch.tensor([[END], [1], [1]]), torch.ones(3).long(), END)
    state.move(torch.tensor([0, 2]), torch.tensor([3, 3]))
    assert state.offsets.tolist() == [1, 1, 3]
    assert state.held().tolist() == [4, 0, 0]


def test_nothing_is_left_of_a_row_that_is_vacated() -> None:
    state = two_rows(width=1)
    state.vacate(0)
    state.add(torch.ones(3, 1).long(), torch.ones(3).long(), None)
    assert state.held().tolist() == [0, 0, 2]
    assert state.said[:, 0].tolist() == [0, 0, 1]
