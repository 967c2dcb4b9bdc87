import numpy as np
import pytest
import torch

from lightning_modules.balance import balance_metrics, load_cv, max_violation


def test_the_measures_of_known_loads() -> None:
    loads = torch.tensor([[5.0, 5.0, 5.0, 5.0], [20.0, 0.0, 0.0, 0.0], [8.0, 4.0, 6.0, 2.0]])
    torch.testing.assert_close(max_violation(loads), torch.tensor([0.0, 3.0, 0.6]))
    reference = np.std(loads.numpy(), axis=1) / np.mean(loads.numpy(), axis=1)
    np.testing.assert_allclose(load_cv(loads).numpy(), reference, rtol=1e-6)
    assert load_cv(loads)[1] == pytest.approx(np.sqrt(3))


def test_metrics_are_named_by_layer() -> None:
    metrics = balance_metrics({1: torch.tensor([1.0, 1.0]), 3: torch.tensor([2.0, 0.0])})
    assert metrics == {
        "moe/max_violation/layer_1": 0.0,
        "moe/load_cv/layer_1": 0.0,
        "moe/max_violation/layer_3": 1.0,
        "moe/load_cv/layer_3": 1.0,
    }
