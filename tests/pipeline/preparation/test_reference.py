from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.audio.codecs.configuration import MuLawConfig
from pipeline.audio.codecs.mu_law import MuLawCodec
from pipeline.audio.measures.summary import measure_speech
from pipeline.audio.utterances import Piece, Utterance
from pipeline.preparation.reference import draw, load_reference, measure_references, save_references
from pipeline.preparation.utterance_reader import UtteranceReader

# Few levels, so that what went through the codec sounds different.
CODEC = MuLawCodec(MuLawConfig(8000, 16, -23.0))
SPLITS = {"train": range(8), "validation": range(8, 11), "test": range(11, 13)}
UTTERANCES = [Utterance(f"s/{i}", "s", split, (Piece(f"s/{i}"),)) for split, numbers in SPLITS.items() for i in numbers]


@pytest.fixture
def reader(make_corpus, make_reader, make_voice) -> UtteranceReader:
    corpus = make_corpus({f"s/{i}": make_voice(0.4, i) for i in range(13)})
    return make_reader(corpus, 8000, 0.0)


def test_each_reference_measures_its_own_split_and_signal(reader: UtteranceReader) -> None:
    references = measure_references(UTTERANCES, reader, CODEC, n_utterances=5, seed=0, workers=1)
    assert sorted(references) == ["train_codec", "train_real", "validation_codec", "validation_real"]
    for split, n in {"train": 5, "validation": 3}.items():
        real = [reader(u) for u in draw([u for u in UTTERANCES if u.split == split], 5, seed=0)]
        decoded = [CODEC.decode(CODEC.encode(torch.from_numpy(audio))).numpy() for audio in real]
        for kind, speech in {"real": real, "codec": decoded}.items():
            found, expected = references[f"{split}_{kind}"], measure_speech(speech, 8000, None)
            assert found.sample_rate == 8000
            assert found.measures.numbers() == expected.numbers()
            assert found.measures.n_utterances == n
            np.testing.assert_allclose(found.measures.statistics.mean, expected.statistics.mean)
    assert references["train_codec"].measures.flatness != references["train_real"].measures.flatness


def test_what_is_saved_can_be_loaded_by_name(reader: UtteranceReader, tmp_path: Path) -> None:
    references = measure_references(UTTERANCES, reader, CODEC, n_utterances=2, seed=0, workers=1)
    save_references(references, tmp_path / "reference")
    assert len(list((tmp_path / "reference").iterdir())) == 8
    for name, reference in references.items():
        loaded = load_reference(tmp_path / "reference", name)
        assert loaded.measures.numbers() == reference.measures.numbers()
        np.testing.assert_array_equal(loaded.measures.statistics.covariance, reference.measures.statistics.covariance)


def test_utterances_are_drawn_once_each_by_seed_and_keep_their_order() -> None:
    train = [u for u in UTTERANCES if u.split == "train"]
    for seed in range(5):
        drawn = draw(train, 4, seed)
        assert len({u.id for u in drawn}) == 4
        assert drawn == sorted(drawn, key=train.index) == draw(train, 4, seed)
    assert len({tuple(u.id for u in draw(train, 4, seed)) for seed in range(5)}) > 1
    assert draw(train, 100, 0) == train
    assert draw([], 3, 0) == []
