from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.evaluation.model import codec_folder, find_data, find_model, identify_model, require_unchanged
from pipeline.provenance.identity import Identity, TrainingIdentity, identity_path, write_identity
from pipeline.provenance.prepared_data import PreparedIdentity, write_prepared_identity

TRAINING = TrainingIdentity("data", "codec", "settings", "configuration", "checkpoint")


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Outputs of a training, and an export of it."""
    for folder in ("train", "export/codec"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "train" / "checkpoint.ckpt").touch()
    write_identity(tmp_path / "train" / "identity.json", Identity(TRAINING))
    write_identity(identity_path(tmp_path / "export"), Identity(TRAINING, follows_training=True))
    return tmp_path


def test_weights_lie_in_the_export_or_in_the_checkpoint_itself(outputs: Path) -> None:
    assert find_model(outputs, "export") == outputs / "export"
    for weights in ("trained", "ema"):
        model = find_model(outputs, weights)
        assert model == outputs / "train" / "checkpoint.ckpt"
        assert identify_model(model, outputs) == TRAINING


@pytest.mark.parametrize(
    ("weights", "remedy"),
    [
        ("export", r"export does not exist; convert the checkpoint: python -m pipeline\.convert_checkpoint"),
        ("ema", r"checkpoint\.ckpt does not exist; train a model: python -m pipeline\.train"),
    ],
)
def test_weights_that_are_not_there_are_told_with_what_makes_them(tmp_path: Path, weights: str, remedy: str) -> None:
    with pytest.raises(FileNotFoundError, match=remedy):
        find_model(tmp_path, weights)


def test_an_export_of_an_earlier_training_is_refused_and_its_checkpoint_is_not(outputs: Path) -> None:
    later = TrainingIdentity("data", "codec", "settings", "configuration", "another")
    write_identity(outputs / "train" / "identity.json", Identity(later))
    with pytest.raises(ValueError, match="is from another training"):
        identify_model(find_model(outputs, "export"), outputs)
    assert identify_model(find_model(outputs, "trained"), outputs) == later


def test_an_export_that_was_replaced_meanwhile_is_refused(outputs: Path) -> None:
    export = outputs / "export"
    training = identify_model(export, outputs)
    require_unchanged(export, training)
    require_unchanged(outputs / "train" / "checkpoint.ckpt", training)
    write_identity(identity_path(export), Identity(replace(TRAINING, checkpoint="another")))
    with pytest.raises(
        ValueError, match=r"export was replaced .*of checkpoint checkpoint before, of checkpoint another"
    ):
        require_unchanged(export, training)


def test_a_model_without_a_codec_of_its_own_speaks_through_that_of_its_tokens(outputs: Path) -> None:
    prepared = outputs / "prepared"
    assert codec_folder(outputs / "export", prepared) == outputs / "export" / "codec"
    assert codec_folder(outputs / "train" / "checkpoint.ckpt", prepared) == prepared / "codec"


@pytest.fixture
def prepared_as(tmp_path: Path, random_split):
    """Prepare a folder in the tokens of a codec of some name; returns the folder and what it is."""

    def prepare(name: str, codec: str) -> tuple[Path, PreparedIdentity]:
        folder = tmp_path / name
        for split in ("train", "validation", "test"):
            random_split(f"{name}/{split}", [3])
        (folder / "codec").mkdir()
        (folder / "codec" / "codec.json").write_text(codec)
        return folder, write_prepared_identity(folder, {})

    return prepare


def test_tokens_of_another_codec_are_refused_for_a_checkpoint_too(outputs: Path, prepared_as) -> None:
    prepared, _ = prepared_as("prepared", "another")
    paths = {"prepared": str(prepared), "cache": str(outputs / "cache")}
    with pytest.raises(ValueError, match="of another codec than that of .*checkpoint.ckpt"):
        find_data(outputs / "train" / "checkpoint.ckpt", TRAINING, paths)


def test_data_are_found_again_where_the_training_read_them(outputs: Path, prepared_as) -> None:
    usual, _ = prepared_as("prepared", "usual")
    own, data = prepared_as("elsewhere", "own")
    training = replace(TRAINING, data=data.digest, codec=data.codec)
    paths = {"prepared": str(usual), "cache": str(outputs / "cache")}
    assert find_data(outputs / "train" / "checkpoint.ckpt", training, paths, own) == own
    with pytest.raises(ValueError, match="of another codec"):
        find_data(outputs / "train" / "checkpoint.ckpt", training, paths, usual)
