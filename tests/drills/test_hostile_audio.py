"""A quick part of the drill: every kind of hostile file three times, through the whole inspection."""

import os
from pathlib import Path

import pytest

from pipeline.audio.configuration import ScreeningConfig
from pipeline.audio.corpora.configuration import FolderConfig
from pipeline.audio.corpora.folder import FolderCorpus
from pipeline.preparation.data_card import write_manifest
from pipeline.preparation.inspection import Inspection, inspect_corpus
from tests.drills.hostile_audio import KINDS, encode, outcomes, write_hostile_audio

SCREENING = ScreeningConfig(1e-4, 0.01, 1.0, "skip", 4000, 768_000, 24)


def inspect(folder: Path, workers: int) -> list[Inspection]:
    corpus = FolderCorpus(FolderConfig(folder, "folder", None))
    return inspect_corpus(corpus, corpus.recordings(), 0.3, SCREENING, workers)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_hostile_file_is_named(tmp_path: Path, seed: int) -> None:
    written = write_hostile_audio(tmp_path / "audio", 3 * len(KINDS), seed)
    (tmp_path / "audio" / "good.wav").write_bytes(encode("WAV", "PCM_16", 1))
    inspections = inspect(tmp_path / "audio", workers=2)
    write_manifest(inspections, {}, tmp_path / "manifest.csv")
    assert {
        kind: outcome.lost for kind, outcome in zip(KINDS, outcomes(written, tmp_path / "manifest.csv"), strict=True)
    } == dict.fromkeys(KINDS, 0)
    found = {i.recording.id: i for i in inspections}
    assert found["good.wav"].reason == ""
    assert found["good.wav"].seconds == 1.0
    for kind in ("pipe", "device", "socket", "link loop", "dangling link", "text", "empty", "undecodable name"):
        ids = [
            os.fsencode(hostile.path).decode(errors="backslashreplace") for hostile in written if hostile.kind == kind
        ]
        assert all(found[name].reason for name in ids), kind
    assert all(found[name].reason == "" for name in found if name.startswith("antiphase/"))
