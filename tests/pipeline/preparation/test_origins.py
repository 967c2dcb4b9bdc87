from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.utterances import Piece, Utterance
from pipeline.preparation.inspection import Inspection
from pipeline.preparation.origins import TABLE, Origin, read_origins, write_origins
from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.shards import finish_split, shard_path, write_shard
from pipeline.tokens.vocabulary import Vocabulary

UTTERANCES = [
    Utterance("b.wav", "ann", "test", (Piece("b.wav"),)),
    Utterance("a.wav@2.000", "bob", "test", (Piece("a.wav", 2.0, 4.0),)),
    Utterance("c.wav+1", "bob", "test", (Piece("c.wav"), Piece("d.wav"))),
    Utterance("e.wav+1", "bob", "test", (Piece("e.wav"), Piece("c.wav"))),
]


@dataclass
class FewUtterances:
    """As much of a plan as the table needs."""

    given: list[Utterance]

    def utterances(self, split: str) -> list[Utterance]:
        return [utterance for utterance in self.given if utterance.split == split]

    def __getitem__(self, name: str) -> Inspection:
        return Inspection(Recording(name, "", TRANSCRIPTS[name]))


TRANSCRIPTS = {"a.wav": "aye", "b.wav": 'say "b", please', "c.wav": "see", "d.wav": "dee", "e.wav": ""}


@pytest.fixture
def split(tmp_path: Path) -> TokenDataset:
    vocabulary = Vocabulary(1, 4)
    documents = [vocabulary.document(np.zeros((n, 1), dtype=np.int64)) for n in (3, 4, 5, 6)]
    write_shard(shard_path(tmp_path / "test", 0), documents, vocabulary)
    finish_split(tmp_path / "test")
    return TokenDataset.open(tmp_path / "test")


def test_documents_know_their_utterance_speaker_and_what_is_said(split: TokenDataset) -> None:
    write_origins(FewUtterances(UTTERANCES), "test", split.folder)
    assert read_origins(split) == (
        Origin("b.wav", "ann", 'say "b", please'),
        Origin("a.wav@2.000", "bob", ""),
        Origin("c.wav+1", "bob", "see dee"),
        Origin("e.wav+1", "bob", ""),
    )
    assert [origin.utterance for origin in read_origins(split.excerpt(6))] == ["b.wav", "a.wav@2.000"]


def test_data_prepared_without_the_table_have_numbers_for_names(split: TokenDataset) -> None:
    assert read_origins(split)[3] == Origin("test document 3")


def test_a_table_of_other_documents_is_refused(split: TokenDataset) -> None:
    write_origins(FewUtterances(UTTERANCES[:3]), "test", split.folder)
    with pytest.raises(ValueError, match=r"utterances.csv lists 3 documents, .* holds 4; run prepare-data again"):
        read_origins(split)
    (split.folder / TABLE).write_text("document,speaker\n0,ann\n")
    with pytest.raises(ValueError, match="is no table of utterances"):
        read_origins(split)
