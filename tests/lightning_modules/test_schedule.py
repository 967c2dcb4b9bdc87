import math

import pytest
import torch

from lightning_modules.schedule import ScheduleConfig


def test_warm_up_is_linear_and_never_zero() -> None:
    schedule = ScheduleConfig(4, 0.0, 0.1)
    assert [schedule.ratio(step, 100) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_without_warm_up_training_starts_at_the_peak() -> None:
    assert ScheduleConfig(0, 0.0, 0.1).ratio(0, 100) == 1.0


@pytest.mark.parametrize("step", range(20, 221, 20))
def test_the_decay_is_torch_s_cosine(step: int) -> None:
    """From the end of warm-up to the last step, against CosineAnnealingLR."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=200, eta_min=0.05)
    for _ in range(step - 20):
        optimizer.step()
        reference.step()
    assert ScheduleConfig(20, 0.0, 0.05).ratio(step, 220) == pytest.approx(reference.get_last_lr()[0], abs=1e-9)


def test_the_plateau_takes_its_share_of_what_follows_warm_up() -> None:
    schedule = ScheduleConfig(100, 0.75, 0.2)
    assert {schedule.ratio(step, 500) for step in range(99, 401)} == {1.0}
    assert 0.999 < schedule.ratio(401, 500) < 1.0
    # Half of the remaining hundred steps: half way from the peak to a fifth of it.
    assert schedule.ratio(450, 500) == pytest.approx(0.6)
    assert schedule.ratio(500, 500) == pytest.approx(0.2)


@pytest.mark.parametrize("constant_fraction", [0.0, 0.68, 1.0])
@pytest.mark.parametrize(("warmup_steps", "max_steps"), [(0, 1), (10, 5), (10, 10), (10, 11), (7, 100)])
def test_the_rate_stays_finite_and_never_rises_again(
    constant_fraction: float, warmup_steps: int, max_steps: int
) -> None:
    schedule = ScheduleConfig(warmup_steps, constant_fraction, 0.1)
    rates = [schedule.ratio(step, max_steps) for step in range(2 * max_steps + 20)]
    assert all(math.isfinite(rate) and 0 < rate <= 1 for rate in rates)
    assert rates[warmup_steps:] == sorted(rates[warmup_steps:], reverse=True)
    assert rates[-1] == pytest.approx(1.0 if constant_fraction == 1 else 0.1)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ((-1, 0.5, 0.1), "schedule.warmup_steps is -1"),
        ((1, 1.5, 0.1), "schedule.constant_fraction is 1.5"),
        ((1, 0.5, -0.1), "schedule.final_ratio is -0.1"),
    ],
)
def test_impossible_values_are_named(values: tuple[int, float, float], key: str) -> None:
    with pytest.raises(ValueError, match=key):
        ScheduleConfig(*values)
