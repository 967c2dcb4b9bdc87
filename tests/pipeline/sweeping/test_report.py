"""What a sweep's page says."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.sweeping.grouping import grouped
from pipeline.sweeping.importance import importance
from pipeline.sweeping.job import Job
from pipeline.sweeping.record import SweepRecord
from pipeline.sweeping.report import sweep_page, winning_command
from pipeline.sweeping.results import find_results
from pipeline.sweeping.settings import Setting, settings_of


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two configurations of two seeds, one job of a third that failed, one that never ran."""
    record = SweepRecord("train", "val/loss", "minimize")
    for lr, seed, loss in ((1e-3, 1, 3.0), (1e-3, 2, 3.1), (1e-2, 1, 4.0), (1e-2, 2, 4.1), (9.0, 1, None)):
        overrides = (f"optimizer.lr={lr}", f"seed={seed}")
        number = record.number(["model=tiny", *overrides])
        folder = tmp_path / str(number)
        (folder / "train").mkdir(parents=True)
        Job(number, overrides, str(folder), loss, "" if loss else "it said <no>", None).write()
        (folder / "train" / "validation.csv").write_text("step,val/loss\n9,5.0\n19,4.0\n")
    record.number(["model=tiny", "optimizer.lr=1", "seed=1"])
    record.write(tmp_path)
    return tmp_path


def test_the_page_names_the_best_configuration_and_the_command_that_trains_it(sweep: Path) -> None:
    results = find_results(str(sweep), {})
    page = sweep_page(results)
    assert "4 finished, 1 failed, 1 open" in page
    assert "optimizer.lr=0.001 has the best val/loss: 3.050" in page
    assert "python -m pipeline.train model=tiny optimizer.lr=0.001 seed=1" in page
    assert "it said &lt;no&gt;" in page
    assert "1 without a result" in page
    assert "2 configurations do not show which settings matter." in page
    assert "http:" not in page.replace("http://www.w3.org", "")
    worst = grouped(results.jobs, -1)[0]
    results.record.goal = "maximize"
    assert winning_command(results, worst).endswith("optimizer.lr=0.01 seed=2")


def test_what_is_no_sweep_is_refused_with_the_remedy(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(ValueError, match="name the folder above"):
        find_results(str(sweep / "0"), {})
    with pytest.raises(FileNotFoundError, match="is no folder of a sweep"):
        find_results("nothing", {})
    empty = tmp_path_factory.mktemp("empty")
    SweepRecord("train", "val/loss", "minimize").write(empty)
    with pytest.raises(ValueError, match="No job of .* has ended yet"):
        find_results(str(empty), {})


@pytest.mark.parametrize("n", [9, 60])
def test_the_setting_that_matters_is_found_by_ranks_and_by_the_forest(n: int) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.uniform(0, 1, n)
    names = ["a" if i % 2 else "b" for i in range(n)]
    settings = [Setting("idle", tuple(names)), Setting("lr", tuple(str(10**number) for number in numbers))]
    found = importance(settings, numbers**2 + 0.01 * rng.normal(size=n))
    assert next(iter(found.shares)) == "lr"
    assert found.shares["lr"] > 0.8 > 0.3 > found.shares["idle"]
    assert ("forest on" in found.method) == (n == 60)


def test_settings_are_those_that_differ() -> None:
    jobs = [Job(i, ("model=tiny", f"lr={lr}"), "", 1.0, "", None) for i, lr in enumerate(("1e-4", "1e-2"))]
    (setting,) = settings_of(grouped(jobs))
    assert (setting.key, setting.is_logarithmic, sorted(setting.places)) == ("lr", True, [0.0, 1.0])
