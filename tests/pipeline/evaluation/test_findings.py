from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pipeline.evaluation.findings import Findings, merge
from pipeline.plumbing.files import read_csv, read_json


def test_the_findings_of_parts_become_files_and_metrics(tmp_path: Path) -> None:
    first = Findings({"a": 1.0}, {"rows.csv": [{"x": 1, "y": "two"}]})
    second = Findings(
        {"b": 2.0}, documents={"who.json": {"judge": "absent"}}, arrays={"m.safetensors": {"z": np.eye(2)}}
    )
    merged = merge([first, Findings(), second])
    assert merged.metrics == {"a": 1.0, "b": 2.0}
    merged.write_files(tmp_path)
    assert read_csv(tmp_path / "rows.csv") == [{"x": "1", "y": "two"}]
    assert read_json(tmp_path / "who.json") == {"judge": "absent"}
    np.testing.assert_array_equal(load_file(tmp_path / "m.safetensors")["z"], np.eye(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "rows.csv", "who.json"]


def test_two_parts_cannot_claim_one_name() -> None:
    with pytest.raises(ValueError, match="write eval/loss"):
        merge([Findings({"eval/loss": 1.0}), Findings({"eval/loss": 2.0})])


def test_tables_of_an_earlier_evaluation_give_way(tmp_path: Path) -> None:
    Findings(tables={"old.csv": [{"a": 1}]}, arrays={"old.safetensors": {"x": np.zeros(1)}}).write_files(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    Findings(tables={"new.csv": [{"a": 1}]}).write_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "notes.txt"]
