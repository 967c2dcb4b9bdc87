"""What prepared data say of themselves, beside what a configuration asks for."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.provenance.prepared_data import (
    differences,
    fits,
    prepared_settings,
    read_prepared_identity,
    require_prepared,
    settings_name,
    write_prepared_identity,
)
from pipeline.tokens.shards import finish_split, shard_path, write_shard
from pipeline.tokens.vocabulary import Vocabulary

VALUES: dict[str, Any] = {
    "data": {
        "kind": "folder",
        "root": "speech",
        "seed": 1,
        "workers": None,
        "screening": {"silence_rms": 1e-4, "max_rejected_fraction": 0.1},
    },
    "codec": {"kind": "mel_rvq", "n_codebooks": 4, "codebook_size": 256},
    "model": {"hidden_size": 8},
    "seed": 1,
}
COMMAND = "python -m pipeline.prepare_data codec=mimi"


def changed(**leaves: Any) -> dict[str, Any]:
    values = deepcopy(VALUES)
    for name, value in leaves.items():
        *groups, last = name.split("__")
        place = values
        for group in groups:
            place = place[group]
        place[last] = value
    return values


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    vocabulary = Vocabulary(1, 16)
    for number, split in enumerate(("train", "validation", "test")):
        write_shard(shard_path(tmp_path / split, 0), [np.array([5, 6, 7 + number])], vocabulary)
        finish_split(tmp_path / split)
    (tmp_path / "codec").mkdir()
    (tmp_path / "codec" / "codec.json").write_text("{}")
    write_prepared_identity(tmp_path, prepared_settings(VALUES))
    return tmp_path


@pytest.mark.parametrize(
    "leaves",
    [
        {"data__workers": 3},
        {"data__screening__max_rejected_fraction": 0.5},
        {"data__root": str(Path("speech").resolve())},
        {"model__hidden_size": 16},
        {"seed": 2},
    ],
)
def test_settings_that_change_no_byte_do_not_matter(prepared: Path, leaves: dict[str, Any]) -> None:
    settings = prepared_settings(changed(**leaves))
    assert require_prepared(prepared, settings, COMMAND).name == settings_name(settings)
    assert fits(prepared, settings)


@pytest.mark.parametrize(
    ("leaves", "sentence"),
    [
        ({"codec__n_codebooks": 8}, "codec.n_codebooks is 4 there and 8 in the configuration"),
        ({"codec": {"kind": "mu_law", "rate": 8000}}, "codec.kind is mel_rvq there and mu_law in the configuration"),
        ({"data__root": "elsewhere"}, "data.root is speech there and elsewhere in the configuration"),
        ({"data__screening__silence_rms": 0.1}, "data.screening.silence_rms is 0.0001 there and 0.1 in"),
        ({"data__new": 1}, "data.new is absent there and 1 in the configuration"),
        ({"data__seed": 2}, "data.seed is 1 there and 2 in the configuration"),
    ],
)
def test_data_of_other_settings_are_refused_by_name_and_remedy(
    prepared: Path, leaves: dict[str, Any], sentence: str
) -> None:
    settings = prepared_settings(changed(**leaves))
    assert not fits(prepared, settings)
    with pytest.raises(ValueError, match="holds other data than asked for") as caught:
        require_prepared(prepared, settings, COMMAND)
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(COMMAND)


def test_of_another_kind_only_the_kind_is_named() -> None:
    other = prepared_settings(changed(codec={"kind": "mu_law", "rate": 8000}, data__seed=2))
    names = [clause.split(" ")[0] for clause in differences(prepared_settings(VALUES), other)]
    assert names == ["codec.kind", "data.seed"]


def test_data_that_do_not_say_what_they_are_are_refused(prepared: Path, tmp_path: Path) -> None:
    (prepared / "identity.json").unlink()
    with pytest.raises(ValueError, match="does not say what it was prepared from.*prepare it again: python -m"):
        read_prepared_identity(prepared)
    with pytest.raises(FileNotFoundError, match="prepare the data: python -m pipeline.prepare_data"):
        read_prepared_identity(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["[]", "{}", '{"format": 2}', '{"format": 1, "settings": {}}'])
def test_an_identity_that_is_none_is_refused(prepared: Path, content: str) -> None:
    (prepared / "identity.json").write_text(content)
    with pytest.raises(ValueError, match="is no identity of prepared data"):
        read_prepared_identity(prepared)


def test_data_that_are_not_what_they_say_are_refused(prepared: Path) -> None:
    index = json.loads((prepared / "test" / "index.json").read_text())
    index["shards"][0]["sha256"] = "0" * 64
    (prepared / "test" / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="does not hold the data that .*identity.json describes"):
        read_prepared_identity(prepared)
    write_prepared_identity(prepared, prepared_settings(VALUES))
    (prepared / "codec" / "codec.json").write_text("{ }")
    with pytest.raises(ValueError, match="does not hold the data"):
        read_prepared_identity(prepared)


def test_digests_tell_data_and_codecs_apart(prepared: Path) -> None:
    before = read_prepared_identity(prepared)
    write_shard(shard_path(prepared / "train", 0), [np.array([5, 6, 9])], Vocabulary(1, 16))
    finish_split(prepared / "train")
    after = write_prepared_identity(prepared, prepared_settings(VALUES))
    assert (after.codec, after.name) == (before.codec, before.name)
    assert after.digest != before.digest
