"""Which evaluations are taken as they are, which are made anew, and what is told where neither can be."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.comparison import evaluating
from pipeline.comparison.evaluated import Evaluated
from pipeline.comparison.finding.found import Found
from pipeline.comparison.pairing import require_comparable
from pipeline.provenance.digests import digest_of
from pipeline.provenance.prepared_data import PreparedIdentity
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
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    stage = Stage()
    monkeypatch.setattr(evaluating, "write_evaluation", stage)
    monkeypatch.setattr(evaluating, "find_data", lambda *_: Path("prepared"))
    monkeypatch.setattr(evaluating, "find_prepared", lambda digest, *_: Path("prepared") if digest == "data" else None)
    # Every model's data and codec, unless its export brings another codec along.
    codec = digest_of(export(tmp_path, "any") / "codec")
    prepared = PreparedIdentity({"data.kind": "espeak", "data.seed": 1}, "data", codec)
    monkeypatch.setattr(evaluating, "read_prepared_identity", lambda _: prepared)
    return stage


@pytest.fixture
def evaluate(tmp_path: Path):
    def evaluate(*found: Found) -> list[Evaluated]:
        return evaluating.evaluate_all(found, VALUES, tmp_path / "cache")

    return evaluate


def export(tmp_path: Path, name: str, codec: str = "ours") -> Path:
    folder = tmp_path / name
    (folder / "codec").mkdir(parents=True)
    (folder / "codec" / "codec.json").write_text(f'"{codec}"')
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


def trained_with(tmp_path: Path, name: str, **data: Any) -> Path:
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"data": {"kind": "espeak", "seed": 1, **data}, "codec": {"kind": "mel_rvq"}}))
    return path


def test_other_recordings_are_told_before_anything_is_evaluated(tmp_path, stage, evaluate) -> None:
    b = Found("b", "b", export=export(tmp_path, "b", "another"), trained_with=trained_with(tmp_path, "b", seed=2))
    with pytest.raises(
        ValueError, match=r"^b and a are of other .*: data\.seed is 2 for b and 1 for a\. .* data\.seed=1\.$"
    ):
        evaluate(finished(tmp_path, "a"), b)
    assert not stage.asked


def test_missing_data_of_another_codec_are_told_without_a_command_of_another_model(tmp_path, stage, evaluate) -> None:
    b = Found("b", "b", export=export(tmp_path, "b", "another"), trained_with=trained_with(tmp_path, "b"))
    with pytest.raises(
        ValueError, match=r"its own codec, which is not that of a, .* that b was trained with, .*"
    ) as told:
        evaluate(finished(tmp_path, "a"), b)
    assert "python" not in str(told.value)


def test_evaluations_on_other_recordings_say_by_which_settings(tmp_path, stage, evaluate) -> None:
    (a,) = evaluate(replace(finished(tmp_path, "a"), trained_with=trained_with(tmp_path, "a")))
    other = finished(tmp_path, "b", data="others", recordings="others")
    (b,) = evaluate(replace(other, trained_with=trained_with(tmp_path, "b", kind="fsdd", root="/corpus")))
    with pytest.raises(ValueError, match=r"data\.kind is fsdd for b and espeak for a\. .*`data` settings of a, or"):
        require_comparable(a, b)
