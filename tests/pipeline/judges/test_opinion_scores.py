import numpy as np
import pytest

from pipeline.judges.judge import SAMPLE_RATE, Judge, Specimen
from pipeline.judges.registry import JUDGES, Options, _absent, call_in


@pytest.fixture(params=["dnsmos", "distillmos"])
def judge(request: pytest.FixtureRequest) -> Judge:
    if absent := _absent(JUDGES[request.param]):
        pytest.skip(f"{absent} is not installed")
    return call_in((request.param,), Options()).judges[request.param]


def test_opinions_are_given_of_sounds_of_any_length(judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).standard_normal(10 * SAMPLE_RATE).astype(np.float32)
    for seconds in (0.1, 3, 10):
        figures = judge.judge(Specimen(0.1 * noise[: round(seconds * SAMPLE_RATE)])).figures
        assert figures.keys() == judge.measures.keys()
        assert all(0 < value < 4 for value in figures.values())
    assert judge.judge(Specimen(noise[:0])).figures == {}
    assert capsys.readouterr().out == ""
