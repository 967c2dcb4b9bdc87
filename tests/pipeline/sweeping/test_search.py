"""A search by Optuna: what it goes on with, and which trainings it stops."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.sweeping.configuration import SweepConfig
from pipeline.sweeping.objective import PRUNED
from pipeline.sweeping.pruning import StopTheWorse, pruning
from pipeline.sweeping.search import Search
from pipeline.sweeping.space import Choice, Range

pytest.importorskip("optuna")
SPACE = [Range("optimizer.lr", 1e-4, 1e-2, True), Choice("model", ("tiny", "small")), Range("n", 1, 8, False)]


def config(trials: int, **others: Any) -> SweepConfig:
    return SweepConfig(1, "val/loss", "minimize", "optuna", trials, **{"at_once": 1, "prune": True, **others})


def test_a_search_goes_on_with_what_was_interrupted_and_tries_again_what_failed(tmp_path: Path) -> None:
    search = Search(tmp_path, config(4), SPACE)
    ends = {"good": (1.0, False), "failed": (None, False), "stopped": (None, True)}
    asked = {}
    for name, end in ends.items():
        (trial,) = search.next_batch()
        asked[name] = search.overrides(trial)
        search.tell(trial, *end)
    (trial,) = search.next_batch()
    asked["interrupted"] = search.overrides(trial)
    assert search.n_left == 0

    again = Search(tmp_path, config(5), SPACE)
    # The good and the stopped one have ended.
    assert again.n_left == 3
    taken_up = []
    while again.n_left:
        (trial,) = again.next_batch()
        taken_up.append(again.overrides(trial))
        again.tell(trial, 2.0, False)
    assert taken_up[:2] == [asked["interrupted"], asked["failed"]]
    assert taken_up[2] not in asked.values()
    assert Search(tmp_path, config(5), SPACE).n_left == 0


def test_numbers_that_are_tried_are_short_and_within_their_range(tmp_path: Path) -> None:
    ends = 1.00004e-4, 1.00012e-4
    search = Search(tmp_path, config(3), [Range("optimizer.lr", *ends, True), Range("dropout", 0.0, 1.0, False)])
    for _ in range(3):
        (trial,) = search.next_batch()
        rate, dropout = (setting.partition("=")[2] for setting in search.overrides(trial))
        assert ends[0] <= float(rate) <= ends[1]
        assert len(dropout) <= len("0.1234e-05")
        search.tell(trial, 1.0, False)


def test_a_training_that_is_worse_than_others_is_stopped(tmp_path: Path) -> None:
    search = Search(tmp_path, config(7), SPACE)
    losses = [1.0, 1.1, 1.2, 1.3, 1.4, 9.0, 0.5]
    stopped = []
    for number, loss in enumerate(losses):
        (trial,) = search.next_batch()
        search.overrides(trial)
        job = tmp_path / str(number)
        search.enter(trial, job)
        trainer = SimpleNamespace(
            state=SimpleNamespace(fn="fit"),
            sanity_checking=False,
            global_step=3,
            max_steps=6,
            is_global_zero=True,
            callback_metrics={"val/loss": loss},
            strategy=SimpleNamespace(reduce_boolean_decision=lambda worse, all: worse),
            should_stop=False,
        )
        (callback,) = pruning(job)
        assert isinstance(callback, StopTheWorse)
        callback.on_validation_end(trainer, None)  # type: ignore[arg-type]
        stopped.append(trainer.should_stop)
        search.tell(trial, loss, trainer.should_stop)
    assert stopped == [False] * 5 + [True, False]
    assert json.loads((tmp_path / "5" / PRUNED).read_text()) == {"step": 3}
    assert pruning(tmp_path) == []


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(ValueError, match="give the smaller one first"):
        Range("lr", 2, 1, False)
    with pytest.raises(ValueError, match="begin above 0"):
        Range("lr", 0, 1, True)
    with pytest.raises(ValueError, match="search is 'best'"):
        SweepConfig(1, "val/loss", "minimize", "best", 1, 1, True)
