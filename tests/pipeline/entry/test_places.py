"""Where relative paths start."""

from pathlib import Path

import pytest

from pipeline.entry.places import say_where_paths_start

RELATIVE = {"prepared": "data/prepared", "outputs": "outputs"}


@pytest.mark.parametrize(("folder", "is_told"), [("docs", True), (".", False), ("../elsewhere", False)])
def test_a_command_in_a_folder_of_the_repository_says_where_paths_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, folder: str, is_told: bool
) -> None:
    repository = tmp_path / "repository"
    here = (repository / folder).resolve()
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    say_where_paths_start({"prepared": "/data", "outputs": "/outputs"}, repository)
    assert caplog.text == ""
    say_where_paths_start(RELATIVE, repository)
    assert (f"Relative paths start here, in {here}, and not at" in caplog.text) == is_told
