from pathlib import Path

import pytest

from pipeline.plumbing.redaction import redacted
from pipeline.tracking import TrackingConfig, store_uri
from pipeline.tracking.config import artifact_location


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "wandb"}, "tracking.kind"),
        ({"experiment": " "}, "tracking.experiment"),
        ({"run_name": ""}, "tracking.run_name"),
        ({"uri": "file:///runs"}, "tracking.uri"),
        ({"uri": "mlruns"}, "tracking.uri"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TrackingConfig(**settings)


def test_the_default_store_lies_at_the_repository_root(tmp_path):
    assert store_uri(TrackingConfig(), tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_queued_experiment_uses_the_store_of_the_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "repository"))
    uri = store_uri(TrackingConfig(), tmp_path / "copy")
    assert uri == f"sqlite:///{tmp_path}/repository/mlflow.db"
    assert artifact_location(uri, tmp_path / "copy") == (tmp_path / "repository" / "mlartifacts").as_uri()


def test_the_environment_decides_only_where_the_configuration_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert store_uri(TrackingConfig(), tmp_path) == "http://localhost:5000"
    assert store_uri(TrackingConfig(uri="sqlite:///other.db"), tmp_path) == f"sqlite:///{tmp_path}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI"):
        store_uri(TrackingConfig(), tmp_path)


def test_a_server_chooses_where_files_go():
    assert artifact_location("http://localhost:5000", Path("/")) is None


def test_absolute_databases_and_drivers_are_kept(tmp_path):
    assert store_uri(TrackingConfig(uri="sqlite:////data/runs.db"), tmp_path) == "sqlite:////data/runs.db"
    uri = "postgresql+psycopg2://user:secret@host:5432/runs"
    assert store_uri(TrackingConfig(uri=uri), tmp_path) == uri
    assert redacted(uri) == "postgresql+psycopg2://host:5432/runs"
