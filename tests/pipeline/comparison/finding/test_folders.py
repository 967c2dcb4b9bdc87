from pathlib import Path

import pytest

from pipeline.comparison.finding.folders import find_folder
from pipeline.plumbing.files import write_yaml
from pipeline.provenance.identity import IDENTITY, Identity, read_identity, write_identity
from tests.evaluations import Model, write_evaluation_of


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Outputs of a training, with an export and its evaluation."""
    folder = tmp_path / "runs" / "outputs"
    write_evaluation_of(Model(), folder / "evaluate")
    write_export(folder / "export", folder / "evaluate")
    write_identity(folder / "train" / IDENTITY, read_identity(folder / "evaluate" / IDENTITY))
    write_yaml(folder / "train" / "config.yaml", {"optimizer": {"lr": 0.1}})
    return folder


def write_export(folder: Path, evaluation: Path) -> None:
    (folder / "codec").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    write_identity(folder / IDENTITY, Identity(read_identity(evaluation / IDENTITY).training))


@pytest.mark.parametrize("part", ["", "evaluate", "export"])
def test_outputs_an_evaluation_and_an_export_lead_to_one_model(outputs: Path, part: str) -> None:
    found = find_folder(str(outputs / part))
    assert (found.evaluation, found.export) == (outputs / "evaluate", outputs / "export")
    assert found.trained_with == outputs / "train" / "config.yaml"
    assert found.label.endswith("runs/outputs")


def test_another_export_of_the_training_is_another_model(outputs: Path) -> None:
    write_export(outputs / "export_fp8", outputs / "evaluate")
    found = find_folder(str(outputs / "export_fp8"))
    assert (found.evaluation, found.export) == (None, outputs / "export_fp8")


def test_an_evaluation_of_an_earlier_training_is_not_the_export_s(outputs: Path) -> None:
    write_evaluation_of(Model(checkpoint="earlier"), outputs / "evaluate")
    for part in ("", "export"):
        assert find_folder(str(outputs / part)).evaluation is None
    found = find_folder(str(outputs / "evaluate"))
    assert (found.evaluation, found.export, found.trained_with) == (outputs / "evaluate", None, None)


def test_a_rejected_conversion_is_told_as_one(tmp_path: Path) -> None:
    """By whichever folder it is named: what failed its checks is compared with nothing."""
    rejected = tmp_path / "export.rejected"
    (rejected / "export" / "codec").mkdir(parents=True)
    (rejected / "export" / "config.json").touch()
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "checkpoint.ckpt").touch()
    for folder in (rejected, rejected / "export"):
        with pytest.raises(
            ValueError, match=r"was rejected when it was converted\. .*export/conversion_report\.json says"
        ):
            find_folder(str(folder))
    with pytest.raises(ValueError, match=r"holds a training whose conversion was rejected\. .*convert_checkpoint$"):
        find_folder(str(tmp_path))


def test_what_does_not_exist_is_no_folder(tmp_path: Path) -> None:
    assert find_folder(str(tmp_path / "nothing")) is None


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ("train/checkpoint.ckpt", r"was not converted yet; run python -m pipeline.convert_checkpoint paths.outputs="),
        ("multirun.yaml", "is the folder of a sweep; name one of its jobs"),
        ("config.json", "has no folder `codec`"),
        ("notes.txt", "is neither an export, nor an evaluation"),
    ],
)
def test_what_is_no_model_is_told_with_what_would_help(tmp_path: Path, made: str, sentence: str) -> None:
    (tmp_path / made).parent.mkdir(exist_ok=True)
    (tmp_path / made).touch()
    with pytest.raises(ValueError, match=sentence):
        find_folder(str(tmp_path))


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").touch()
    with pytest.raises(ValueError, match="is a file; convert it"):
        find_folder(str(tmp_path / "model.ckpt"))
