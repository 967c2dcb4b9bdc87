"""The command `compare`, on evaluations in folders and a store of its own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.comparison import comparing, promotion
from pipeline.comparison.command import compare
from pipeline.comparison.configuration import CompareConfig
from pipeline.provenance.identity import IDENTITY, Identity, write_identity
from pipeline.tracking.registry import find_champion
from pipeline.tracking.request import RunRequest
from pipeline.tracking.start import start_run
from tests.evaluations import Model, write_evaluation_of
from tests.pipeline.tracking.conftest import CONFIG, empty_database  # noqa: F401
from tests.pipeline.tracking.exports import TRAINING, write_export


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    """As much of the configuration as is read where everything was evaluated."""
    return {
        "paths": {"outputs": str(tmp_path), "cache": str(tmp_path / "cache"), "prepared": str(tmp_path / "prepared")},
        "tracking": {"kind": "none"},
        "comparison": {"decisive": ["eval/loss", "audio/fd"], "training_spread": None},
        "evaluate": {},
        "report": {"n_examples": 2},
    }


@pytest.fixture
def store(values, tmp_path, empty_database, monkeypatch) -> Path:  # noqa: F811
    """A store that knows the training which all exports are of."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    values["tracking"] = {"kind": "mlflow", "uri": f"sqlite:///{tmp_path / 'mlflow.db'}", "experiment": "test"}
    for module in (comparing, promotion):
        monkeypatch.setattr(module, "REPOSITORY", tmp_path)
    with start_run(CONFIG, tmp_path, tmp_path, RunRequest("a run", "train", tags=TRAINING.tags())):
        pass
    return tmp_path


def outputs(folder: Path, loss: float, shift: float, seed: int) -> Path:
    write_evaluation_of(Model(loss=loss, shift=shift, seed=seed), folder / "evaluate", sounds=True)
    write_export(folder / "export", folder.name)
    write_identity(folder / "evaluate" / IDENTITY, Identity(TRAINING, data="data", recordings="recordings"))
    return folder


@pytest.fixture
def weak(tmp_path: Path) -> str:
    return str(outputs(tmp_path / "weak", 3.3, 2.0, 0))


@pytest.fixture
def strong(tmp_path: Path) -> str:
    return str(outputs(tmp_path / "strong", 3.0, 0.5, 1))


def run(values: dict[str, Any], *names: str, output: str = "json", page: Path | None = None, promote: bool = False):
    compare(values, CompareConfig(names, output, None if page is None else str(page), promote))


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_table_with_letters_for_the_models_and_a_page(values, weak, strong, tmp_path, capsys) -> None:
    run(values, weak, strong, weak, output="table", page=tmp_path / "page")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:3] for line in lines[:3]] == ["A  ", "B  ", "C  "]
    assert any(line.endswith("/strong is better than " + lines[0][3:] + ".") for line in lines)
    assert [line.split()[:2] for line in lines if line.endswith("to tell it takes")] == [["A", "B"], ["A", "C"]]
    html = (tmp_path / "page" / "index.html").read_text()
    assert html.count("<audio") > 4
    assert ">Better<" in html


def test_one_object_on_the_last_line(values, weak, strong, capsys) -> None:
    run(values, strong, weak)
    found = last_line(capsys)
    assert (found["verdict"], found["verdicts"]["eval/loss"]) == ("worse", "worse")
    assert found["comparisons"][0]["model"]["name"].endswith("weak")


def test_the_champion_moves_to_what_is_better_and_to_nothing_else(values, store, weak, strong, capsys) -> None:
    run(values, strong, weak, promote=True)
    assert last_line(capsys)["promoted"] is False
    assert find_champion(CONFIG, store) is None
    run(values, "champion", weak, promote=True)
    assert last_line(capsys)["promoted"] is True
    run(values, weak, strong, promote=True)
    assert last_line(capsys)["promoted"] is True
    third = outputs(store / "third", 2.7, 0.2, 2)
    with pytest.raises(ValueError, match=r"^The test was against .*weak.*, and the champion is test version 2"):
        run(values, weak, str(third), promote=True)
    assert find_champion(CONFIG, store).version == "2"


def test_nothing_is_promoted_where_nothing_is_recorded(values, weak, strong) -> None:
    for first in (weak, "champion"):
        with pytest.raises(ValueError, match="tracking=none keeps none"):
            run(values, first, strong, promote=True)
