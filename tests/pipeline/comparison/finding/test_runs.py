"""Names that lead to no model of the store, though the store knows them."""

import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from pipeline.comparison.finding.found import Places
from pipeline.comparison.finding.runs import find_run
from tests.pipeline.tracking.conftest import CONFIG, empty_database  # noqa: F401


@pytest.fixture
def places(tmp_path: Path, empty_database: Path) -> Places:  # noqa: F811
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return Places(tmp_path / "outputs", tmp_path / "cache", tmp_path, CONFIG)


def test_a_deleted_run_an_experiment_and_nothing_are_told_apart(places: Places) -> None:
    client = MlflowClient(f"sqlite:///{places.repository / 'mlflow.db'}")
    run_id = client.create_run(client.create_experiment("test"), run_name="lost").info.run_id
    client.delete_run(run_id)
    with pytest.raises(ValueError, match=f"^The run {run_id} was deleted; name another"):
        find_run(run_id, places)
    with pytest.raises(ValueError, match="^test is an experiment of MLflow; name one of its runs"):
        find_run("test", places)
    assert find_run("f" * 32, places) is None
    assert find_run("no run: at all", places) is None


def test_a_run_without_an_evaluation_says_how_one_is_made(places: Places) -> None:
    client = MlflowClient(f"sqlite:///{places.repository / 'mlflow.db'}")
    run = client.create_run(client.create_experiment("test"), run_name="young", tags={"melisma.stage": "train"})
    found = find_run("young", places)
    assert (found.evaluation, found.export) == (None, None)
    assert found.label == f"young ({run.info.run_id[:8]})"
    assert "evaluate it where it lies" in found.remedy


def test_of_two_runs_of_one_name_the_ids_are_told(places: Places) -> None:
    client = MlflowClient(f"sqlite:///{places.repository / 'mlflow.db'}")
    experiment = client.create_experiment("test")
    for _ in range(2):
        client.create_run(experiment, run_name="twice")
    with pytest.raises(ValueError, match=r"^2 runs are called twice; name one by its id, as \w{8}, \w{8}\.$"):
        find_run("twice", places)
