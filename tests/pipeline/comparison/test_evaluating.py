"""Which evaluations are taken as they are, which are made anew, and what is told where neither can be."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.comparison import evaluating
from pipeline.comparison.evaluated import Evaluated
from pipeline.comparison.finding.found import Found
from tests.evaluations import SETTINGS, Model, write_evaluation_of

VALUES = {"evaluate": {**SETTINGS, "seed": 7}, "paths": {"prepared": "prepared", "cache": "cache"}}


@dataclass
class Stage:
    """The stage evaluate, which writes what it is asked for and remembers it."""

    broken: bool = False
    asked: list[tuple[str, int]] = field(default_factory=list)

    def __call__(self, model: Path, training: Any, prepared: Path, group: dict[str, Any], folder: Path) -> None:
        self.asked.append((model.name, group["seed"]))
        write_evaluation_of(Model(seed=len(self.asked)), folder, settings=group)
        if self.broken:
            # The identity comes last.
            (folder / "identity.json").unlink()
            raise KeyboardInterrupt


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage()
    monkeypatch.setattr(evaluating, "write_evaluation", stage)
    monkeypatch.setattr(evaluating, "find_data", lambda export, training, paths: Path("prepared"))
    monkeypatch.setattr(evaluating, "find_prepared", lambda *_: None)
    monkeypatch.setattr(evaluating, "read_prepared_identity", lambda _: SimpleNamespace(digest="data"))
    return stage


@pytest.fixture
def evaluate(tmp_path: Path):
    def evaluate(*found: Found) -> list[Evaluated]:
        return evaluating.evaluate_all(found, VALUES, tmp_path / "cache")

    return evaluate


def export(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "checksums.json").write_text(f'{{"weights": "{name}"}}')
    return folder


def finished(tmp_path: Path, name: str, **options: Any) -> Found:
    return Found(name, name, evaluation=write_evaluation_of(Model(), tmp_path / name, **options), remedy="no export.")


def test_a_missing_evaluation_is_made_once_on_the_prompts_of_the_other(tmp_path, stage, evaluate) -> None:
    a, b = finished(tmp_path, "a"), Found("b", "b", export=export(tmp_path, "b"))
    first, made = evaluate(a, b)
    assert (first.folder, made.settings["seed"]) == (a.evaluation, SETTINGS["seed"])
    assert evaluate(a, b)[1].folder == made.folder
    assert stage.asked == [("b", SETTINGS["seed"])]


def test_without_any_the_configuration_says_which_prompts(tmp_path, stage, evaluate) -> None:
    evaluate(*(Found(name, name, export=export(tmp_path, name)) for name in "ab"))
    assert stage.asked == [("a", 7), ("b", 7)]


def test_an_interrupted_evaluation_is_made_again(tmp_path, stage, evaluate) -> None:
    found = finished(tmp_path, "a"), Found("b", "b", export=export(tmp_path, "b"))
    stage.broken = True
    with pytest.raises(KeyboardInterrupt):
        evaluate(*found)
    stage.broken = False
    assert evaluate(*found)[1].label == "b"
    assert len(stage.asked) == 2


def test_of_other_prompts_and_without_an_export_it_is_told_which_setting_differs(tmp_path, stage, evaluate) -> None:
    other = finished(tmp_path, "b", settings=SETTINGS | {"n_prompted": 4})
    with pytest.raises(FileNotFoundError, match=r"b was evaluated with evaluate\.n_prompted=4 and a with 16: .* Name"):
        evaluate(finished(tmp_path, "a"), other)
    assert not stage.asked


def test_an_evaluation_of_an_earlier_version_and_no_evaluation_are_told(tmp_path, stage, evaluate) -> None:
    earlier = finished(tmp_path, "b")
    (earlier.evaluation / "intervals.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"of b in .* is of an earlier version, without intervals\.json"):
        evaluate(finished(tmp_path, "a"), earlier)
    with pytest.raises(FileNotFoundError, match=r"no export\."):
        evaluate(finished(tmp_path, "c"), Found("d", "d", remedy="no export."))
