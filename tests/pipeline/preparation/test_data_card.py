import csv
from pathlib import Path

import numpy as np
import pytest

from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.measures.summary import ReferenceStatistics, measure_speech
from pipeline.preparation.data_card import MANIFEST_COLUMNS, describe, write_card, write_manifest
from pipeline.preparation.inspection import Inspection
from pipeline.preparation.plan import Plan
from pipeline.tokens.shards import finish_split, shard_path, write_shard
from pipeline.tokens.vocabulary import Vocabulary

VOCABULARY = Vocabulary(2, 4)
REMARK = "the table names 3 files that are not there"
FRAMES = {"train": [100, 50, 0], "validation": [25], "test": [75]}
INSPECTIONS = [
    Inspection(Recording("a/1.wav", "a", 'She said "no, thanks",\nand left.'), 1.25, "ab" * 32, note="streamed"),
    Inspection(Recording("a/2.wav", "a"), 0.1, "cd" * 32, "too short: 0.10 s of at least 0.3 s"),
    Inspection(Recording("b/ü, 3.wav", "b"), reason="not a readable audio file"),
]


class FewRecordings(Plan):
    """As much of a plan as the card needs."""

    def __init__(self) -> None:
        pass

    def recordings(self):
        return ((i, "" if i.reason else "test") for i in INSPECTIONS)

    def rejected(self, limit: int):
        return iter([i for i in INSPECTIONS if i.reason][:limit])

    def noted(self, limit: int):
        return iter([i for i in INSPECTIONS if i.note and not i.reason][:limit])

    def count_recordings(self) -> int:
        return 3

    def count_rejected(self) -> int:
        return 2

    def count_noted(self) -> int:
        return 1

    def count_speakers(self, split: str) -> int:
        return {"train": 2, "validation": 1, "test": 1}[split]


@pytest.fixture
def indices(tmp_path: Path) -> dict[str, dict]:
    for split, frames in FRAMES.items():
        documents = [VOCABULARY.document(np.zeros((n, 2), dtype=np.int64)) for n in frames]
        write_shard(shard_path(tmp_path / split, 0), documents, VOCABULARY)
    return {split: finish_split(tmp_path / split) for split in FRAMES}


@pytest.fixture
def card(indices, make_voice) -> dict:
    reference = ReferenceStatistics(8000, measure_speech([make_voice(0.5, 1)], 8000, None))
    return describe("folder", {"kind": "mel_rvq"}, 50.0, FewRecordings(), [REMARK], indices, {"train_real": reference})


def test_the_manifest_has_a_row_for_every_recording(tmp_path: Path) -> None:
    write_manifest(FewRecordings(), tmp_path / "manifest.csv")
    with (tmp_path / "manifest.csv").open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        first, second, third = list(reader)
        assert tuple(reader.fieldnames or ()) == MANIFEST_COLUMNS
    assert first == {
        "file": "a/1.wav", "speaker": "a", "seconds": "1.250", "split": "test", "sha256": "ab" * 32,
        "status": "used", "reason": "", "note": "streamed", "transcript": 'She said "no, thanks",\nand left.',
    }  # fmt: skip
    assert (second["status"], second["reason"], second["split"]) == ("rejected", INSPECTIONS[1].reason, "")
    assert (third["file"], third["seconds"], third["sha256"]) == ("b/ü, 3.wav", "0.000", "")


def test_the_card_counts_frames_not_specials(card: dict) -> None:
    assert card["splits"] == {
        "train": {"utterances": 3, "seconds": 3.0, "speakers": 2, "tokens": 306},
        "validation": {"utterances": 1, "seconds": 0.5, "speakers": 1, "tokens": 52},
        "test": {"utterances": 1, "seconds": 1.5, "speakers": 1, "tokens": 152},
    }


def test_the_card_names_what_was_rejected(card: dict) -> None:
    assert (card["recordings"], card["rejected_count"]) == (3, 2)
    assert card["rejected"] == [{"file": i.recording.id, "reason": i.reason} for i in INSPECTIONS[1:]]
    assert (card["noted_count"], card["noted"]) == (1, [{"file": "a/1.wav", "note": "streamed"}])
    assert card["reference"]["train_real"]["n_utterances"] == 1


def test_the_card_can_be_read(card: dict, tmp_path: Path) -> None:
    write_card(card, tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text()
    assert text.startswith("# Data card: folder\n\n3 recordings, 2 of them not used")
    assert REMARK in text
    assert "Codec: mel_rvq, 50 frames a second." in text
    assert "| train | 3 | 0.1 | 2 | 306 |" in text
    flatness = card["reference"]["train_real"]["flatness"]
    assert f"| train_real | 1 | {flatness:.3f} |" in text
