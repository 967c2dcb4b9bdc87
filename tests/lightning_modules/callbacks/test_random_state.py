import random
from typing import Any

import lightning as L  # noqa: N812
import numpy as np
import pytest
import torch

from lightning_modules.callbacks.random_state import RandomState, derived_seed, random_state, set_random_state
from lightning_modules.callbacks.resume import ResumeCheckpoint, step_checkpoints


def draw() -> tuple[float, float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), float(np.random.randn()), random.random()


class Draws(L.Callback):
    """Draws from every generator in every step."""

    def __init__(self) -> None:
        self.drawn: dict[int, tuple[float, ...]] = {}

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self.drawn[trainer.global_step] = draw()


def test_a_state_is_brought_back_and_is_plain(tmp_path) -> None:
    np.random.randn()  # leaves one more number in store
    state = random_state()
    drawn = draw()
    torch.save(state, tmp_path / "state.pt")
    draw()
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draw() == drawn


@pytest.mark.parametrize("interrupt_at", [2, 3])
def test_a_training_that_goes_on_draws_what_it_would_have_drawn(fit_scripted, tmp_path, interrupt_at: int) -> None:
    def fit(folder: str, **options: Any) -> dict[int, tuple[float, ...]]:
        draws = Draws()
        callbacks = [RandomState(), draws, ResumeCheckpoint(tmp_path / folder, every_n_steps=2)]
        L.seed_everything(1, verbose=False)
        try:
            fit_scripted(callbacks, max_steps=5, val_every_steps=2, **options)
        except ConnectionAbortedError:
            return {}
        return draws.drawn

    whole = fit("whole")
    fit("cut", interrupt_at=interrupt_at)
    assert fit("cut", resume=step_checkpoints(tmp_path / "cut")[-1]) == {step: whole[step] for step in (2, 3, 4)}


def test_other_ranks_get_seeds_of_their_own_that_follow_from_the_state() -> None:
    L.seed_everything(1, verbose=False)
    state = random_state()
    seeds = [derived_seed(state, rank, 4) for rank in range(4)]
    assert len(set(seeds)) == 4
    assert seeds == [derived_seed(state, rank, 4) for rank in range(4)]
    assert seeds[0] != derived_seed(state, 0, 2)
    torch.rand(1)
    assert seeds[0] != derived_seed(random_state(), 0, 4)
