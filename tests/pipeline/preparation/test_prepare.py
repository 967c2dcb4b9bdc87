"""Each combination of settings that a sweep asks for is prepared once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import soundfile
from omegaconf import OmegaConf

from pipeline.configuration.composed import CONF
from pipeline.plumbing.files import read_csv
from pipeline.preparation import encoding
from pipeline.preparation.prepare import prepare, prepare_combination
from pipeline.provenance.prepared_data import prepared_settings, require_prepared
from pipeline.tokens.audio_hashes import read_audio_hashes
from pipeline.tokens.dataset import TokenDataset

RATE = 8000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "speech"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(6):
        soundfile.write(folder / f"{i}.wav", 0.1 * generator.standard_normal(4000 + 80 * i), RATE)
    return folder


@pytest.fixture
def shards_written(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    written: list[Path] = []
    write = encoding.write_shard

    def count(path: Path, *arguments: Any) -> Any:
        written.append(path)
        return write(path, *arguments)

    monkeypatch.setattr(encoding, "write_shard", count)
    return written


def composed(root: Path, *overrides: str) -> dict[str, Any]:
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        config = hydra.compose(
            "config",
            ["data=folder", f"data.root={root}", "codec=mu_law", "data.workers=1", "data.split.validation=0.2",
             "data.split.test=0.2", *overrides],
        )  # fmt: skip
    values: Any = OmegaConf.to_container(config, resolve=True)
    return values


def test_jobs_that_ask_at_once_share_one_preparation(root: Path, tmp_path: Path, shards_written: list[Path]) -> None:
    together = threading.Barrier(3)

    def job(_: int) -> Path:
        together.wait()
        return prepare_combination(composed_once, tmp_path / "prepared", tmp_path / "cache")

    composed_once = composed(root)
    with ThreadPoolExecutor(3) as pool:
        (folder,) = set(pool.map(job, range(3)))
    assert len(shards_written) == 3  # one a split
    require_prepared(folder, prepared_settings(composed_once), "")


def test_each_combination_has_a_folder_of_its_own_and_the_usual_one_serves_where_it_fits(
    root: Path, tmp_path: Path, shards_written: list[Path]
) -> None:
    usual, cache = tmp_path / "prepared", tmp_path / "cache"
    prepare(composed(root), usual, cache)
    n_before, before = len(shards_written), (usual / "identity.json").read_bytes()
    assert prepare_combination(composed(root, "data.workers=2"), usual, cache) == usual
    assert len(shards_written) == n_before
    other = prepare_combination(composed(root, "data.seed=2"), usual, cache)
    assert other not in (usual, prepare_combination(composed(root, "codec.loudness_db=-20"), usual, cache))
    assert (usual / "identity.json").read_bytes() == before
    n_written = len(shards_written)
    assert prepare_combination(composed(root, "data.seed=2"), usual, cache) == other
    assert len(shards_written) == n_written


@pytest.mark.parametrize("lengths", [("max_seconds=3", "join_seconds=1.2"), ("min_seconds=0.1", "max_seconds=0.3")])
def test_prepared_data_say_which_recordings_their_documents_hold(
    root: Path, tmp_path: Path, lengths: tuple[str, ...]
) -> None:
    """Also where recordings are joined, or cut."""
    overrides = [f"data.utterances.{length}" for length in lengths]
    prepare(composed(root, *overrides, "data.split.test=0.4"), tmp_path / "prepared", tmp_path / "cache")
    manifest = read_csv(tmp_path / "prepared" / "manifest.csv")
    for split in ("train", "validation", "test"):
        folder = tmp_path / "prepared" / split
        documents, hashes = read_audio_hashes(folder)
        assert set(documents.tolist()) == set(range(len(TokenDataset.open(folder))))
        assert {f"{number:016x}" for number in hashes.tolist()} == {
            row["sha256"][:16] for row in manifest if row["split"] == split
        }
        origins = read_csv(folder / "utterances.csv")
        sha256_of = {row["file"]: row["sha256"] for row in manifest}
        for document, number in zip(documents.tolist(), hashes.tolist(), strict=True):
            name = origins[document]["utterance"]
            if "+" not in name:
                assert sha256_of[name.partition("@")[0]].startswith(f"{number:016x}")
