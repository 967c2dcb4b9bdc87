import numpy as np
import pytest
import torch

from pipeline.audio.codecs.configuration import MuLawConfig
from pipeline.audio.codecs.mu_law import MuLawCodec
from pipeline.audio.measures.summary import measure_speech
from pipeline.preparation import encoding
from pipeline.preparation.encoding import Material
from pipeline.preparation.engines.engine import LocalEngine
from pipeline.preparation.reference import BODIES, Measuring, drawn, load_reference

# Few levels, so that what went through the codec sounds different.
CODEC = MuLawCodec(MuLawConfig(8000, 16, -23.0))
SPLITS = {"train": range(8), "validation": range(8, 11), "test": range(11, 13)}


@pytest.fixture(scope="module")
def material(make_corpus, make_material, make_voice) -> Material:
    splits = {f"s/{i}": split for split, numbers in SPLITS.items() for i in numbers}
    return make_material(make_corpus({name: make_voice(0.4, i) for i, name in enumerate(splits)}, splits=splits))


def test_each_reference_measures_its_own_split_and_signal(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "open_codec", lambda _: CODEC)
    work = Measuring(material, n_utterances=5, seed=0)
    LocalEngine(1).run(work)
    assert sorted(BODIES) == ["train_codec", "train_real", "validation_codec", "validation_real"]
    assert len(list((material.folder / "reference").iterdir())) == 8
    references = {name: load_reference(material.folder / "reference", name) for name in BODIES}
    with material.open() as (plan, read):
        for split, n in {"train": 5, "validation": 3}.items():
            real = [read(utterance) for utterance in drawn(plan, split, 5, seed=0)]
            decoded = [CODEC.decode(CODEC.encode(torch.from_numpy(audio))).numpy() for audio in real]
            for kind, speech in {"real": real, "codec": decoded}.items():
                found, expected = references[f"{split}_{kind}"], measure_speech(speech, 8000, None)
                assert found.sample_rate == 8000
                assert found.measures.numbers() == expected.numbers()
                assert found.measures.n_utterances == n
                np.testing.assert_allclose(found.measures.statistics.mean, expected.statistics.mean)
    assert references["train_codec"].measures.flatness != references["train_real"].measures.flatness
    assert list(work.pending()) == []


def test_utterances_are_drawn_once_each_by_seed_and_keep_their_order(material: Material) -> None:
    with material.open() as (plan, _):
        train = list(plan.utterances("train"))
        for seed in range(5):
            chosen = drawn(plan, "train", 4, seed)
            assert len({u.id for u in chosen}) == 4
            assert chosen == sorted(chosen, key=train.index) == drawn(plan, "train", 4, seed)
        assert len({tuple(u.id for u in drawn(plan, "train", 4, seed)) for seed in range(5)}) > 1
        assert drawn(plan, "train", 100, 0) == train
        assert drawn(plan, "no such split", 3, 0) == []
