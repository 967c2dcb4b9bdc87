"""A quick part of the drill: every kind of hostile file three times, through the whole inspection."""

import os
from pathlib import Path

import pytest

from tests.drills.hostile_audio import KINDS, encode, outcomes, write_hostile_audio
from tests.drills.recordings import survey_folder


@pytest.mark.parametrize("seed", [0, 1])
def test_every_hostile_file_is_named(tmp_path: Path, seed: int) -> None:
    written = write_hostile_audio(tmp_path / "audio", 3 * len(KINDS), seed)
    (tmp_path / "audio" / "good.wav").write_bytes(encode("WAV", "PCM_16", 1))
    inspections = survey_folder(tmp_path / "audio", "folder", tmp_path, workers=2)
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
