"""A small corpus with long recordings, a copy and a bad file, and what one process makes of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest
import soundfile
from omegaconf import OmegaConf

from pipeline.configuration.composed import CONF
from pipeline.preparation.prepare import prepare

RATE = 8000
Contents = dict[str, bytes]


def settings(root: Path) -> list[str]:
    """What the corpus is prepared with."""
    return [
        "data=folder", f"data.root={root}", "codec=mu_law", "data.workers=1", "data.split.validation=0.2",
        "data.split.test=0.2", "data.utterances.max_seconds=1", "data.shard_utterances=3",
        "data.reference_utterances=4",
    ]  # fmt: skip


def contents(folder: Path) -> Contents:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, make_voice) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(24):
        path = folder / f"s{number % 5}" / f"{number:02}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, make_voice(0.4 + 0.15 * (number % 9), number), RATE)
    (folder / "s0" / "copy.wav").write_bytes((folder / "s1" / "01.wav").read_bytes())
    (folder / "s0" / "text.wav").write_text("no sound")
    return folder


@pytest.fixture(scope="session")
def composed(root: Path) -> Callable[..., dict[str, Any]]:
    def compose(*overrides: str) -> dict[str, Any]:
        with hydra.initialize_config_dir(str(CONF), version_base=None):
            config = hydra.compose("config", [*settings(root), *overrides])
        values: Any = OmegaConf.to_container(config, resolve=True)
        return values

    return compose


@pytest.fixture(scope="session")
def expected(composed, tmp_path_factory: pytest.TempPathFactory) -> Contents:
    """What one process writes."""
    folder = tmp_path_factory.mktemp("expected")
    prepare(composed(), folder / "prepared", folder / "cache")
    return contents(folder / "prepared")
