"""A codec that is taken from other prepared data: byte for byte, or in one sentence not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import hydra
import numpy as np
import pytest
import soundfile
from omegaconf import OmegaConf

from pipeline.configuration.composed import CONF
from pipeline.preparation.prepare import prepare, prepare_combination
from pipeline.preparation.taken_codec import taken_codec
from pipeline.provenance.digests import digest_of
from pipeline.provenance.prepared_data import prepared_settings, read_prepared_identity, require_prepared
from pipeline.tokens.dataset import TokenDataset

RATE = 8000
SMALL = ("codec.n_codebooks=1", "codec.codebook_size=8", "codec.fit_frames=100", "codec.kmeans_iterations=2")


def composed(root: Path, *overrides: str) -> dict[str, Any]:
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        config = hydra.compose(
            "config",
            ["data=folder", f"data.root={root}", *SMALL, "data.workers=1", "data.split.validation=0.2",
             "data.split.test=0.2", *overrides],
        )  # fmt: skip
    values: Any = OmegaConf.to_container(config, resolve=True)
    return values


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory, make_voice: Callable[..., np.ndarray]) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("corpora")
    for first, name in enumerate("ab"):
        (folder / name).mkdir()
        for i in range(6):
            soundfile.write(folder / name / f"{i}.wav", make_voice(0.5 + 0.05 * i, 10 * first + i), RATE)
    return {name: folder / name for name in "ab"}


@pytest.fixture(scope="module")
def fitted(corpora: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first corpus, whose codec was fitted on it."""
    folder = tmp_path_factory.mktemp("fitted")
    prepare(composed(corpora["a"]), folder / "prepared", folder / "cache")
    return folder / "prepared"


def test_tokens_of_both_corpora_mean_the_same_sounds(corpora: dict[str, Path], fitted: Path, tmp_path: Path) -> None:
    values = composed(corpora["b"], f"codec.taken_from={fitted}")
    prepare(values, tmp_path / "prepared", tmp_path / "cache")
    identity = require_prepared(tmp_path / "prepared", prepared_settings(values), "")
    assert identity.codec == read_prepared_identity(fitted).codec
    assert len(TokenDataset.open(tmp_path / "prepared" / "train")) == 4
    anew = prepare_combination(composed(corpora["b"]), tmp_path / "prepared", tmp_path / "cache")
    assert read_prepared_identity(anew).codec != identity.codec


def test_data_are_not_what_is_asked_for_once_the_other_codec_is_fitted_anew(
    corpora: dict[str, Path], fitted: Path, tmp_path: Path
) -> None:
    source, cache = tmp_path / "source", tmp_path / "cache"
    prepare(composed(corpora["a"]), source, cache)
    values = composed(corpora["b"], f"codec.taken_from={source}")
    prepare(values, tmp_path / "prepared", cache)
    prepare(composed(corpora["a"], "data.seed=2"), source, cache)
    with pytest.raises(ValueError, match=r"speaks through another codec than .*/source does now. Prepare it again: do"):
        require_prepared(tmp_path / "prepared", prepared_settings(values), "do")
    prepare(values, tmp_path / "prepared", cache)
    assert require_prepared(tmp_path / "prepared", prepared_settings(values), "").codec == (
        read_prepared_identity(source).codec
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["codec.codebook_size=16"], r"has another codec: codec.codebook_size is 8 there and 16 here. Set the same"),
        (["codec.fit_hours=1"], r"codec.fit_hours says how to fit a codec that codec.taken_from takes as it is"),
    ],
)
def test_a_codec_of_other_settings_is_refused(
    corpora: dict[str, Path], fitted: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    values = composed(corpora["b"], f"codec.taken_from={fitted}", *overrides)
    with pytest.raises(ValueError, match=message):
        prepare(values, tmp_path / "prepared", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_codec_behind_a_url_is_fetched_anew_each_time(corpora: dict[str, Path], fitted: Path, tmp_path: Path) -> None:
    bucket, url = fsspec.filesystem("memory"), "memory://taken_codec/prepared"
    options = composed(corpora["b"], f"codec.taken_from={url}/")["codec"]
    with pytest.raises(
        FileNotFoundError, match=r"^codec.taken_from: memory://taken_codec/prepared/codec does not exist"
    ):
        taken_codec(options, tmp_path)
    for name in ("codec.json", "codec.safetensors"):
        bucket.pipe(f"{url}/codec/{name}", (fitted / "codec" / name).read_bytes())
    folder = taken_codec(options, tmp_path)
    assert folder is not None
    assert digest_of(folder) == digest_of(fitted / "codec")
    bucket.pipe(f"{url}/codec/codec.safetensors", bytes(100))
    with pytest.raises(ValueError, match=r"codec.safetensors is not a safetensors file"):
        taken_codec(options, tmp_path)
    bucket.rm(url, recursive=True)


def test_a_codec_that_is_not_there_or_damaged_is_refused(corpora: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere/codec does not exist; name prepared data, or an export"):
        prepare(composed(corpora["b"], "codec.taken_from=nowhere"), tmp_path / "prepared", tmp_path / "cache")
    (tmp_path / "broken" / "codec").mkdir(parents=True)
    (tmp_path / "broken" / "codec" / "codec.json").write_text("{")
    with pytest.raises(ValueError, match="codec.json is not valid JSON"):
        prepare(composed(corpora["b"], f"codec.taken_from={tmp_path / 'broken'}"), tmp_path / "p", tmp_path / "cache")
