import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.judges.separation import separation


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_separation_is_the_area_under_the_curve(better: str) -> None:
    generator = np.random.default_rng(0)
    speech, other = generator.integers(0, 8, 30), generator.integers(2, 10, 20)
    labels = np.repeat([1, 0] if better == "higher" else [0, 1], [30, 20])
    assert separation(speech, other, better) == pytest.approx(roc_auc_score(labels, np.concatenate([speech, other])))


def test_who_always_prefers_speech_scores_one_and_who_sees_no_difference_a_half() -> None:
    assert separation([3, 4], [1, 2], "higher") == 1
    assert separation([3, 4], [1, 2], "lower") == 0
    assert separation([1, 1], [1], "higher") == 0.5
    assert math.isnan(separation([], [1], "higher"))
