"""How the jobs of a sweep ended, in words."""

from pathlib import Path

import pytest

from pipeline.entry.sweep_jobs import say_summary, summary
from pipeline.sweeping.job import Job
from pipeline.sweeping.record import SweepRecord

JOBS = [
    Job(0, ("optimizer.lr=-1",), "/sweep/0", None, "ValueError: optimizer.lr must be positive.", None),
    Job(1, ("optimizer.lr=1e-3",), "/sweep/1", 3.25, "", "abc"),
    Job(2, ("optimizer.lr=2e-3",), "/sweep/2", 3.125, "", "def"),
    Job(3, ("optimizer.lr=9",), "/sweep/3", float("nan"), "", None),
]


def test_the_best_job_is_named_with_its_folder_and_run() -> None:
    lines = summary(JOBS).splitlines()
    assert lines == [
        "3 of 4 jobs finished, 1 failed:",
        "  Job 0 (optimizer.lr=-1): ValueError: optimizer.lr must be positive.",
        "Best: Job 2 (optimizer.lr=2e-3), 3.1250, in /sweep/2, run def.",
    ]


def test_a_stage_without_an_objective_has_no_best_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert summary([Job(0, ("evaluate.temperature=0.7",), "/sweep/0", None, "", None)]) == "1 of 1 jobs finished."
    monkeypatch.chdir(tmp_path)
    assert "in multirun/0." in summary([Job(0, (), f"{tmp_path}/multirun/0", 1.0, "", None)])


def test_seeds_of_a_configuration_are_one_and_the_best_mean_wins() -> None:
    objectives = {("lr=1", "seed=1"): 1.0, ("lr=1", "seed=2"): 5.0, ("lr=2", "seed=1"): 2.0, ("lr=2", "seed=2"): 3.0}
    jobs = [Job(n, overrides, f"/s/{n}", value, "", None) for n, (overrides, value) in enumerate(objectives.items())]
    *_, configuration, best = summary(jobs).splitlines()
    # Student's t of one degree of freedom: 2.5 ± 12.706 · 0.5.
    assert configuration == "Best of 2 configurations: lr=2, 2.5000 (-3.8531 to 8.8531, 2 seeds)."
    assert best == "Best: Job 2 (lr=2, seed=1), 2.0000, in /s/2."
    assert "Best: Job 1 (lr=1, seed=2), 5.0000" in summary(jobs, sign=-1)


def test_an_interrupted_sweep_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SweepRecord("train", "val/loss", "minimize", [["lr=1"], ["lr=2"], ["lr=3"]]).write(tmp_path)
    say_summary(tmp_path)
    assert capsys.readouterr().out == "", "refused before a job began"
    (tmp_path / "0").mkdir()
    say_summary(tmp_path)
    assert capsys.readouterr().out == "3 of 3 jobs have not ended; the same command goes on with them.\n"
    Job(0, ("lr=1",), str(tmp_path / "0"), 2.0, "", None).write()
    say_summary(tmp_path)
    assert capsys.readouterr().out.endswith("2 of 3 jobs have not ended; the same command goes on with them.\n")
