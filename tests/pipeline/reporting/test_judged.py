import math
from pathlib import Path

import pytest

from pipeline.plumbing.files import write_csv, write_json
from pipeline.reporting.judged import Heard, Judged, JudgedBody, read_judged

BODY = {"judge": "ear", "measure": "words", "signal": "codec", "value": 2, "low": 1, "high": 3, "separation": 0.5}
WINDOW = {"signal": "generated", "number": 0, "second": 2.5, "flatness": "", "level_db": -80, "repetition": 0}


def test_what_was_not_written_is_empty(tmp_path: Path) -> None:
    assert read_judged(tmp_path) == Judged()
    for name in ("judge_bodies", "heard", "long_generation"):
        write_csv(tmp_path / f"{name}.csv", [])
    assert read_judged(tmp_path) == Judged()


def test_tables_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_json(tmp_path / "judges.json", {"skipped": {"nose": "not installed"}})
    write_csv(tmp_path / "judge_bodies.csv", [BODY])
    write_csv(tmp_path / "heard.csv", [{"judge": "ear", "signal": "codec", "number": 3, "said": "one", "heard": ""}])
    write_csv(tmp_path / "long_generation.csv", [WINDOW | {"state": "silence"}])
    judged = read_judged(tmp_path)
    assert judged.document == {"skipped": {"nose": "not installed"}}
    assert judged.bodies == {("ear", "words"): {"codec": JudgedBody(2, 1, 3, 0.5)}}
    assert judged.heard == (Heard("codec", 3, "one", ""),)
    [window] = judged.windows
    assert (window.signal, window.number, window.second, window.state) == ("generated", 0, 2.5, "silence")
    assert math.isnan(window.flatness)


def test_a_cell_that_is_no_number_is_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "judge_bodies.csv", [BODY | {"value": "loud"}])
    with pytest.raises(ValueError, match="judge_bodies.csv, row 1, column 'value': 'loud' is not a number"):
        read_judged(tmp_path)
