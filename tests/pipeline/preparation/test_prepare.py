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
from pipeline.preparation import encoding
from pipeline.preparation.prepare import prepare, prepare_combination
from pipeline.provenance.prepared_data import prepared_settings, require_prepared

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
