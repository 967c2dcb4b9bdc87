import json

import pytest

from benchmarks.encode import main


def test_lines_tell_the_rate_that_of_a_plain_loop_and_that_codes_agree(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--hours=0.02", "--plain-hours=0.005"])
    ours, plain, compared = map(json.loads, capsys.readouterr().out.splitlines()[-3:])
    assert (ours["codec"], ours["sample_rate"], ours["device"]) == ("mel_rvq_4x256", 8000, "cpu")
    assert plain["peer"] == "plain"
    assert min(ours["times_real_time"], plain["times_real_time"]) > 1
    assert compared["codes_as_on_a_cpu"] == 1.0
