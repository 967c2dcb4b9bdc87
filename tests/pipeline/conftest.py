import importlib
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.repository_copy import STAGES, RepositoryCopy, stages_run

# The status of a command, and what it wrote to standard output and error.
Told = tuple[int, str, str]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Told]]:
    """Run a command in this process; return its status, and what it wrote to standard output and error."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    handlers, level = logging.root.handlers[:], logging.root.level

    def run(stage: str, *arguments: str) -> Told:
        monkeypatch.setattr(sys, "argv", [stage, *arguments])
        try:
            importlib.import_module(f"pipeline.{stage}").main()
            status = 0
        except SystemExit as ended:
            status = ended.code
        return (status, *capsys.readouterr())

    yield run
    logging.root.handlers[:], logging.root.level = handlers, level


@pytest.fixture(scope="module")
def copy(espeak_available: None, tmp_path_factory: pytest.TempPathFactory) -> RepositoryCopy:
    """A copy of the repository, after its first `dvc repro`."""
    copy = RepositoryCopy(tmp_path_factory.mktemp("melisma"))
    assert stages_run(copy.run("dvc", "repro")) == STAGES
    copy.commit("first run")
    return copy


@pytest.fixture(scope="module")
def recordings(copy: RepositoryCopy) -> Path:
    """A folder of good speech and one broken file."""
    folder = copy.root / "recordings"
    folder.mkdir()
    for path in sorted((copy.root / "data/cache").glob("espeak-*/shard_000/*.wav"))[:15]:
        shutil.copy(path, folder)
    (folder / "broken.wav").write_text("not audio")
    return folder
