"""Which training a result is from, as files tell it."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipeline.provenance.digests import digest_of
from pipeline.provenance.identity import (
    Identity,
    TrainingIdentity,
    identify_checkpoint,
    identity_path,
    read_identity,
    require_current,
    write_identity,
)
from pipeline.provenance.training import (
    GROUPS,
    begin_outputs,
    finish_outputs,
    latest_training,
    prepared_for,
    recorded_configuration,
    run_of,
)
from pipeline.tracking.run import NullRun

TRAINING = TrainingIdentity(data="d" * 64, codec="c" * 64, settings="s" * 16, configuration="f" * 64)
VALUES = {
    "data": {"kind": "espeak"}, "codec": {"kind": "mu_law"}, "model": {"hidden_size": 8}, "optimizer": {"lr": 0.1},
    "schedule": {}, "trainer": {"max_steps": 3}, "feed": {}, "precision": {}, "strategy": {}, "seed": 1,
    "tracking": {"uri": "http://bob:hush@localhost"}, "paths": {"prepared": "data/own"},
}  # fmt: skip


class Run(NullRun):
    """A run that has a name in a store."""

    def reference(self) -> dict[str, str | None]:
        return {"run_id": "r1", "experiment": "melisma", "tracking_uri": "sqlite:///x.db"}


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """What a training leaves."""
    (tmp_path / "checkpoint.ckpt").write_bytes(b"weights")
    finish_outputs(tmp_path, VALUES, TRAINING, Run())
    return tmp_path


def test_a_training_s_outputs_say_whose_they_are(outputs: Path) -> None:
    found = latest_training(outputs)
    assert found is not None
    assert found.training == replace(TRAINING, checkpoint=digest_of(outputs / "checkpoint.ckpt"))
    assert recorded_configuration(outputs) == {name: VALUES[name] for name in GROUPS}
    assert run_of(outputs, found.training)["run_id"] == "r1"
    assert prepared_for(outputs) == Path("data/own")
    for other in (None, replace(found.training, checkpoint="0" * 64)):
        assert run_of(outputs, other) == {}
    before = (outputs / "identity.json").read_bytes()
    assert b"r1" not in before, "what is random stays out of what is hashed"
    begin_outputs(outputs)
    assert latest_training(outputs) is None


def test_a_checkpoint_is_known_by_what_it_says_wherever_it_lies(outputs: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.ckpt"
    (outputs / "checkpoint.ckpt").rename(moved)
    found = identify_checkpoint(moved, TRAINING.inside())
    assert found == latest_training(outputs).training  # type: ignore[union-attr]
    moved.write_bytes(b"other weights")
    assert identify_checkpoint(moved, TRAINING.inside()) != found
    assert identify_checkpoint(moved, None) is None
    with pytest.raises(ValueError, match="elsewhere.ckpt holds an identity that is none"):
        identify_checkpoint(moved, {"who": "me"})


def test_an_export_carries_its_source_s_training_along(tmp_path: Path) -> None:
    folder, file = tmp_path / "export", tmp_path / "single.ckpt"
    folder.mkdir()
    file.write_bytes(b"weights")
    for result in (folder, file):
        assert identify_checkpoint(result, None) is None
        write_identity(identity_path(result), Identity(TRAINING, follows_training=True))
        assert identify_checkpoint(result, None) == TRAINING
    write_identity(identity_path(folder), Identity(None))
    assert identify_checkpoint(folder, TRAINING.inside()) is None, "a stranger's"


def test_what_followed_an_earlier_training_is_refused(tmp_path: Path) -> None:
    latest = Identity(replace(TRAINING, checkpoint="b" * 64))
    old = Identity(replace(TRAINING, checkpoint="a" * 64), follows_training=True)
    with pytest.raises(ValueError, match=r"export is from another training \(checkpoint a{12}\).*\(checkpoint b{12}\)"):
        require_current(Path("export"), old, latest, "python -m pipeline.convert_checkpoint")
    for fine in (None, Identity(None), replace(old, follows_training=False), replace(latest, follows_training=True)):
        require_current(Path("export"), fine, latest, "")
    require_current(Path("export"), old, None, "")


@pytest.mark.parametrize("content", ["[]", "{}", '{"format": 2, "training": null}', '{"format": 1, "training": {}}'])
def test_a_damaged_identity_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "identity.json").write_text(content)
    with pytest.raises(ValueError, match="identity.json is no identity of a result"):
        read_identity(tmp_path / "identity.json")


def test_a_folder_s_digest_is_that_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("1")
    first = digest_of(tmp_path)
    (tmp_path / "sub" / "a").rename(tmp_path / "sub" / "b")
    second = digest_of(tmp_path)
    (tmp_path / "sub" / "b").write_text("2")
    assert len({first, second, digest_of(tmp_path)}) == 3
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        digest_of(tmp_path / "nowhere")


def test_tags_lead_from_a_file_to_its_run() -> None:
    assert TRAINING.tags() == {f"identity.{name}": value for name, value in asdict(TRAINING).items() if value}
