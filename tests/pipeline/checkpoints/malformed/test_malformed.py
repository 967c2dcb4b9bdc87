"""What becomes of checkpoints that must be refused: an error that names the file, and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[4]
KINDS = ("huggingface", "deepseek", "distributed", "lightning", "legacy", "old", "header", "index", "pickle", "archive")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """One process tries all, so that a crash would be seen, and what it does cannot harm this one."""
    folder = tmp_path_factory.mktemp("malformed")
    command = [sys.executable, "-m", "tests.pipeline.checkpoints.malformed.attempt", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    found = [json.loads(line) for line in (folder / "outcomes.jsonl").read_text().splitlines()]
    last = found[-1]["name"] if found else "the first"
    assert result.returncode == 0, f"the process died after {last!r}:\n{result.stderr[-2000:]}"
    return found


def malformed(outcomes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [outcome for outcome in outcomes if not outcome["is_good"]]


def test_there_are_many_of_every_layout_and_kind(outcomes: list[dict[str, Any]]) -> None:
    names = [outcome["name"] for outcome in malformed(outcomes)]
    assert len(names) == len(set(names)) >= 300
    assert all(sum(name.startswith(kind) for name in names) >= 20 for kind in KINDS)


def test_all_are_refused_by_errors_that_name_the_file(outcomes: list[dict[str, Any]]) -> None:
    assert [outcome for outcome in malformed(outcomes) if not (outcome["is_ours"] and outcome["names_file"])] == []


def test_none_leaves_anything_or_runs_code(outcomes: list[dict[str, Any]]) -> None:
    assert [outcome for outcome in malformed(outcomes) if outcome["left"] or outcome["ran_code"]] == []


def test_none_takes_long(outcomes: list[dict[str, Any]]) -> None:
    assert [outcome for outcome in outcomes if outcome["seconds"] > 5] == []


def test_what_is_written_in_the_same_ways_and_is_whole_is_converted(outcomes: list[dict[str, Any]]) -> None:
    whole = [outcome for outcome in outcomes if outcome["is_good"]]
    assert len(whole) >= 20
    assert [outcome for outcome in whole if outcome["error"] is not None] == []
