import json

import pytest

from benchmarks.prepare import main


def test_one_line_tells_rates_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--hours=0.03", "--sample-rate=8000", "--peers=plain", "--fit-hours=1", "--codec=mel_rvq_4x256"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["hours"] == pytest.approx(0.03, abs=0.01)
    assert told["cpu_seconds"].keys() == {"inspect", "plan", "encode_long", "encode", "finish", "plain"}
    assert told["inspecting_and_encoding"] > told["times_real_time"] > 0
    assert told["workers"] == 1
    assert told["encoding_by_the_clock"] >= told["inspecting_and_encoding_by_the_clock"] > 0
    assert told["peak_mib"]["finish"] >= told["peak_mib"]["begin"] > 0
