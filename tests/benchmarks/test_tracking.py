import pytest

from benchmarks.tracking import DELAYS, STATES, WHOLE, measure


@pytest.mark.parametrize("state", STATES)
def test_each_state_of_a_server_is_measured(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tracking.writer.LAST_ATTEMPTS", 0.2)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    for delayed in DELAYS:
        monkeypatch.setitem(DELAYS, delayed, 0.1 if delayed == "slow" else 60.0)
    paid = measure(state, steps=3, step_seconds=0.0, n_metrics=2)
    assert paid["state"] == state
    assert paid["records kept"] == (0 if state in (WHOLE, "slow") else 4)
