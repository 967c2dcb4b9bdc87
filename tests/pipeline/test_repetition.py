"""Copies of the repository, each in a folder of its own, come to the same bytes."""

from pathlib import Path

import pytest

from tests.repository_copy import RepositoryCopy


@pytest.mark.long
@pytest.mark.usefixtures("espeak_available")
def test_another_copy_repeats_every_byte(tmp_path: Path) -> None:
    """What a first run leaves in git, dvc.lock and metrics included."""
    trees = set()
    for name in ("one", "another"):
        copy = RepositoryCopy(tmp_path / name)
        copy.run("dvc", "repro")
        copy.commit("first run")
        trees.add(copy.tree())
    assert len(trees) == 1
