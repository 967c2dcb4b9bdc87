import pytest
import torch
from torch import Tensor

from benchmarks.clock import StepClock
from benchmarks.decoding.comparison import judge, take_steps


class Counting:
    """Says 0, 1, 2, …, and writes down whose turn it was."""

    def __init__(self, name: str, diary: list[str]) -> None:
        self.clock = StepClock(torch.device("cpu"))
        self.name = name
        self.diary = diary

    def step(self, said: Tensor | None = None) -> Tensor:
        self.clock.start()
        self.diary.append(self.name)
        self.clock.stop()
        scores = torch.zeros(1, 8)
        scores[0, self.clock.n_steps - 1] = 1
        return scores

    def tokens(self) -> Tensor:
        return torch.arange(self.clock.n_steps)[None]

    def release(self) -> None:
        self.diary.append("release")


@pytest.mark.parametrize(("turn", "diary"), [(2, "ours ours theirs theirs ours release theirs"), (9, "")])
def test_sides_take_turns(turn: int, diary: str) -> None:
    written: list[str] = []
    outcome = take_steps(Counting("ours", written), lambda: Counting("theirs", written), 3, turn, n_checked=2)
    assert " ".join(written) == (diary or "ours ours ours release theirs theirs theirs")
    assert outcome is not None
    theirs, agreement = outcome
    assert theirs.clock.n_steps == 3
    assert (agreement.equal, agreement.largest_regret) == (1, 0)


def test_alone_we_take_all_steps() -> None:
    written: list[str] = []
    assert take_steps(Counting("ours", written), None, 3, 2, 2) is None
    assert written == ["ours", "ours", "ours", "release"]


def test_regret_is_what_another_choice_would_have_scored_more() -> None:
    scores = torch.tensor([[0.0, 1.0, 3.0], [5.0, 1.0, 1.0]])
    agreement = judge([scores], torch.tensor([[1], [0]]))
    assert agreement.equal == 0.5
    assert agreement.largest_regret == pytest.approx(2 / float(scores[0].std()))
    assert agreement.mean_regret == pytest.approx(agreement.largest_regret / 2)
