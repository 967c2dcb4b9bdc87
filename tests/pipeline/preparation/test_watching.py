from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.audio.corpora.folder import FolderConfig, FolderCorpus
from pipeline.preparation.watching import linked_folders, warn_of_unwatched


def test_folders_that_dvc_does_not_look_into_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus, far = tmp_path / "corpus", tmp_path / "far"
    for folder in (corpus / "near", far / "inner"):
        folder.mkdir(parents=True)
        soundfile.write(folder / "a.wav", np.zeros(800), 8000)
    warn(corpus)
    assert caplog.text == ""
    (corpus / "elsewhere").symlink_to(far)
    (corpus / "near" / "b.wav").symlink_to(far / "inner" / "a.wav")
    warn(corpus)
    assert "links to folders, as elsewhere in" in caplog.text
    assert "paths.corpus" in caplog.text


def test_links_to_files_and_the_root_itself_are_watched(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "b.wav").symlink_to("a.wav")
    (tmp_path / "root").symlink_to(tmp_path)
    assert linked_folders(tmp_path / "root", ["a.wav", "b.wav"]) == []


def warn(root: Path) -> None:
    corpus = FolderCorpus(FolderConfig(root, "folder", None))
    warn_of_unwatched(corpus, [recording.id for recording in corpus.recordings()])
