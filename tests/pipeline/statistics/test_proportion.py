import numpy as np
import pytest
from scipy.stats import binomtest

from pipeline.statistics.proportion import wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (7, 10), (10, 10), (130, 200)])
def test_as_scipy_has_it(successes: int, n: int) -> None:
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    found = wilson(successes, n)
    assert (found.value, found.low, found.high) == pytest.approx((successes / n, expected.low, expected.high))


def test_of_no_trials_nothing_is_known() -> None:
    assert np.isnan(wilson(0, 0).low)
