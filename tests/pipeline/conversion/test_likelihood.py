import math

import pytest

from pipeline.conversion.likelihood import judge
from pipeline.tokens.ngram import Losses

BASELINE = Losses(uniform=5.5, unigram=5.2, bigram=4.4, n_targets=1000)


@pytest.mark.parametrize(
    ("loss", "is_trained", "has_random_parts", "status"),
    [
        (3.5, True, False, "pass"),
        (3.5, True, True, "pass"),
        (4.9, True, False, "warn"),
        (4.9, True, True, "fail"),
        (4.9, False, False, "warn"),
        (5.3, True, False, "fail"),
        (5.3, False, False, "warn"),
        (5.3, False, True, "fail"),
        (4.4, True, True, "fail"),
        (math.nan, False, False, "fail"),
        (math.inf, True, False, "fail"),
    ],
)
def test_what_a_loss_means_depends_on_the_weights(
    loss: float, is_trained: bool, has_random_parts: bool, status: str
) -> None:
    assert judge(loss, BASELINE, is_trained, has_random_parts).status == status


def test_the_sentence_names_the_baseline_that_was_not_beaten() -> None:
    assert judge(4.95, BASELINE, True, False).sentence == "4.95 nats a token, no better than the bigram's 4.40"
    assert judge(5.95, BASELINE, True, False).sentence == "5.95 nats a token, no better than the unigram's 5.20"
    assert judge(3.49, BASELINE, True, False).sentence == "3.49 nats a token, below the bigram's 4.40"
