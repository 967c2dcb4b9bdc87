import logging

import pytest

from pipeline.evaluation.evaluate import say_what_is_uncertain


def test_a_few_held_out_utterances_are_said_to_be_too_few(caplog: pytest.LogCaptureFixture) -> None:
    metrics = {"eval/loss": 3.0, "eval/loss/low": 2.9, "audio/fd_reference": 200.0}
    with caplog.at_level(logging.WARNING):
        say_what_is_uncertain(metrics, n_documents=7)
    assert "No interval is known of audio/fd_reference: held-out utterances are too few (7)." in caplog.text
    assert "data.split.test" in caplog.text
    caplog.clear()
    say_what_is_uncertain(metrics | {"audio/fd_reference/low": 150.0}, n_documents=47)
    assert not caplog.text
