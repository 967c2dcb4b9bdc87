"""The alias `champion`: it moves by a paired test against the champion of now, and by nothing else."""

import json
from pathlib import Path

import pytest

from pipeline.tracking.registry import champion_export, find_champion, promote
from tests.pipeline.tracking.conftest import CONFIG
from tests.pipeline.tracking.exports import TRAINING, write_export


@pytest.fixture
def training(start) -> str:
    with start(tags=TRAINING.tags()) as run:
        return run.run_id


def test_the_first_is_unopposed_and_outlives_its_folder(training, root, client, tmp_path):
    assert find_champion(CONFIG, root) is None
    with pytest.raises(FileNotFoundError, match="test has no champion yet"):
        champion_export(CONFIG, root)
    export = write_export(tmp_path / "export", "first")
    champion = promote(CONFIG, root, export, None, "cannot tell", {"audio/fd": "90 [80, 100]"})
    assert champion == find_champion(CONFIG, root)
    assert (champion.version, champion.run_id, champion.uri) == ("1", training, "models:/test@champion")
    version = client.get_model_version_by_alias("test", "champion")
    assert version.tags["audio/fd"] == "90 [80, 100]"
    assert version.tags["verdict"] == "first"
    weights = export / "model.safetensors"
    kept = champion_export(CONFIG, root)
    assert (kept / "model.safetensors").samefile(weights)
    weights.unlink()
    assert (kept / "model.safetensors").read_text() == "first"


def test_it_moves_only_when_a_test_against_the_champion_says_better(training, root, tmp_path):
    first, second, third = (write_export(tmp_path / name, name) for name in ("first", "second", "third"))
    promote(CONFIG, root, first, None, "better", {})
    with pytest.raises(ValueError, match="The test was against nothing, and the champion is test version 1"):
        promote(CONFIG, root, second, None, "better", {})
    with pytest.raises(ValueError, match=f"The test was against {third}"):
        promote(CONFIG, root, second, third, "better", {})
    for verdict in ("cannot tell", "worse"):
        with pytest.raises(ValueError, match=f'The champion stays test version 1: the verdict is "{verdict}"'):
            promote(CONFIG, root, second, first, verdict, {})
    assert find_champion(CONFIG, root).version == "1"
    assert promote(CONFIG, root, second, first, "better", {}).version == "2"
    assert promote(CONFIG, root, second, first, "cannot tell", {}).version == "2"
    with pytest.raises(ValueError, match="champion is test version 2"):
        promote(CONFIG, root, third, first, "better", {})


def test_what_no_run_made_and_what_does_not_speak_is_no_champion(root, client, tmp_path):
    export = write_export(tmp_path / "export", "stranger")
    with pytest.raises(
        ValueError, match=r"is from no run of the experiment test in .*, has to be repeated with tracking"
    ):
        promote(CONFIG, root, export, None, "better", {})
    assert not client.search_registered_models()
    assert find_champion(CONFIG, root) is None
    (export / "config.json").unlink()
    with pytest.raises(ValueError, match="no export that speaks"):
        promote(CONFIG, root, export, None, "better", {})


def test_a_champion_describes_itself_to_mlflow(training, root, tmp_path):
    promote(CONFIG, root, write_export(tmp_path / "export", "first"), None, "better", {})
    kept = champion_export(CONFIG, root)
    assert "loader_module: pipeline.mlflow_model.speaking" in (kept / "MLmodel").read_text()
    assert json.loads((kept / "input_example.json").read_text())["columns"] == ["tokens"]
    assert not Path(tmp_path / "export" / "MLmodel").exists()
