import numpy as np
import pytest
import torch
from scipy.stats import entropy

from lightning_modules.balance import (
    balance_metrics,
    dead_experts,
    load_cv,
    load_drift,
    load_entropy,
    max_violation,
)


def test_the_measures_of_known_loads() -> None:
    loads = torch.tensor([[5.0, 5.0, 5.0, 5.0], [20.0, 0.0, 0.0, 0.0], [8.0, 4.0, 6.0, 2.0]])
    torch.testing.assert_close(max_violation(loads), torch.tensor([0.0, 3.0, 0.6]))
    reference = np.std(loads.numpy(), axis=1) / np.mean(loads.numpy(), axis=1)
    np.testing.assert_allclose(load_cv(loads).numpy(), reference, rtol=1e-6)
    assert load_cv(loads)[1] == pytest.approx(np.sqrt(3))


def test_entropy_is_that_of_an_even_load_or_less() -> None:
    loads = torch.tensor([[5.0, 5.0, 5.0, 5.0], [20.0, 0.0, 0.0, 0.0], [8.0, 4.0, 6.0, 2.0]])
    reference = entropy(loads.numpy(), axis=1, base=4)
    np.testing.assert_allclose(load_entropy(loads).numpy(), reference, rtol=1e-6, atol=1e-7)
    assert load_entropy(loads)[:2].tolist() == [1.0, 0.0]


def test_experts_that_get_next_to_nothing_are_dead() -> None:
    assert dead_experts(
        torch.tensor([[100.0, 100.0, 100.0, 0.5], [3.0, 1.0, 1.0, 1.0], [9.0, 0.0, 0.0, 0.0]])
    ).tolist() == [
        1,
        0,
        3,
    ]


def test_drift_is_the_share_that_moved_whatever_the_totals() -> None:
    before, now = torch.tensor([[1.0, 1.0], [4.0, 0.0]]), torch.tensor([[2.0, 2.0], [0.0, 7.0]])
    assert load_drift(before, now).tolist() == [0.0, 1.0]
    assert float(load_drift(torch.tensor([5.0, 5.0]), torch.tensor([6.0, 4.0]))) == pytest.approx(0.1)


def test_metrics_are_named_by_layer() -> None:
    metrics = balance_metrics({1: torch.tensor([1.0, 1.0]), 3: torch.tensor([2.0, 0.0])})
    assert metrics == {
        "moe/max_violation/layer_1": 0.0,
        "moe/load_cv/layer_1": 0.0,
        "moe/load_entropy/layer_1": 1.0,
        "moe/dead_experts/layer_1": 0,
        "moe/max_violation/layer_3": 1.0,
        "moe/load_cv/layer_3": 1.0,
        "moe/load_entropy/layer_3": 0.0,
        "moe/dead_experts/layer_3": 1,
    }
