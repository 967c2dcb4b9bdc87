"""Which jobs of a sweep run: those that have not ended well, under the numbers they have."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from pipeline.entry.sweep import runs_at_once
from pipeline.entry.sweep_request import combinations, of_seeds, refuse_places, require_seeds_apart
from pipeline.sweeping.job import Job, read_job, read_jobs
from pipeline.sweeping.record import SweepRecord, read_record


def parsed(*words: str) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(words))


def test_every_combination_is_trained_with_every_seed() -> None:
    (first, second) = combinations(parsed("model=tiny,small", "optimizer.lr=1e-3"))
    assert (first, second) == (["model=tiny", "optimizer.lr=0.001"], ["model=small", "optimizer.lr=0.001"])
    assert of_seeds(first, 5, 2) == [[*first, "seed=5"], [*first, "seed=6"]]
    assert of_seeds(["seed=7"], 7, 2) == [["seed=7"], ["seed=8"]]
    assert of_seeds(first, 5, 1) == [first]


@pytest.mark.parametrize(
    ("words", "stage", "message"),
    [
        (["seed=1,2"], "train", "seed lists values, and sweep.seeds=3"),
        (["evaluate.temperature=1,2"], "evaluate", "sweep.seeds=3 is for trainings"),
    ],
)
def test_seeds_that_contradict_each_other_are_refused(words: list[str], stage: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_seeds_apart(parsed(*words), 3, stage)


def test_trainings_are_not_asked_to_lie_in_several_places() -> None:
    places = parsed("paths.outputs=a,b")
    with pytest.raises(ValueError, match=r"paths\.outputs lists folders, .*leave it out"):
        refuse_places(places, "train")
    refuse_places(places, "evaluate")
    refuse_places(parsed("paths.outputs=a", "seed=1,2"), "train")


@pytest.mark.parametrize(
    ("launcher", "told"),
    [
        ({}, ""),
        ({"n_jobs": 1}, ""),
        ({"n_jobs": 2}, "2 at once"),
        ({"n_jobs": -1}, "one on each core"),
        ({"array_parallelism": 256}, "256 at once"),
    ],
)
def test_launchers_of_several_jobs_are_told_from_those_of_one(launcher: dict[str, int], told: str) -> None:
    assert runs_at_once(OmegaConf.create(launcher)) == told


def test_a_range_is_no_list_of_values() -> None:
    with pytest.raises(ValueError, match=r"optimizer.lr=interval\(1,2\) is a range"):
        combinations(parsed("optimizer.lr=interval(1,2)"))


def test_a_job_keeps_its_number_when_others_are_asked_for(tmp_path: Path) -> None:
    record = SweepRecord("train", "val/loss", "minimize")
    assert [record.number([f"lr={lr}", "model=tiny"]) for lr in (1, 2)] == [0, 1]
    record.write(tmp_path)
    again = read_record(tmp_path)
    assert again is not None
    assert [again.number(job) for job in (["model=tiny", "lr=2"], ["lr=3"], ["lr=1", "model=tiny"])] == [1, 2, 0]


def test_a_sweep_that_was_moved_is_found_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    Job(0, ("lr=1", "seed=2"), str(tmp_path / "old"), 2.5, "", None).write()
    (tmp_path / "old").rename(tmp_path / "0")
    (job,) = read_jobs(tmp_path)
    assert (job.folder, job.configuration) == (str(tmp_path / "0"), ("lr=1",))
    (tmp_path / "0" / "job.json").write_text("{}")
    with pytest.raises(ValueError, match="delete it, and the job runs again"):
        read_job(tmp_path / "0")
