from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.audio.codecs.configuration import MuLawConfig
from pipeline.audio.codecs.mu_law import MuLawCodec
from pipeline.audio.utterances import Piece, Utterance
from pipeline.preparation import encoding
from pipeline.preparation.encoding import Encoding, Material, some_hours
from pipeline.preparation.engines.engine import LocalEngine
from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.shards import finish_split
from pipeline.tokens.vocabulary import Vocabulary

VOCABULARY = Vocabulary(1, 256)
GAP_SECONDS = 0.05


class CountingCodec(MuLawCodec):
    """Counts what it encodes, and fails when it has encoded so many."""

    def __init__(self, fail_after: int | None = None) -> None:
        super().__init__(MuLawConfig(8000, 256, -23.0))
        self.n_encoded = 0
        self.fail_after = fail_after

    def encode(self, audio: Tensor) -> Tensor:
        if self.n_encoded == self.fail_after:
            raise OSError("No space left on device")
        self.n_encoded += 1
        return super().encode(audio)


COUNTS = {"train": 8, "validation": 4, "test": 2}


@pytest.fixture
def material(make_corpus, make_material, make_voice) -> Material:
    names = [f"s/{i:02}" for i in range(14)]
    splits = dict(zip(names, [split for split, count in COUNTS.items() for _ in range(count)], strict=True))
    return make_material(make_corpus({n: make_voice(0.05 + 0.01 * i, i) for i, n in enumerate(names)}, splits=splits))


@pytest.fixture
def encode(material: Material, monkeypatch: pytest.MonkeyPatch) -> Callable[[CountingCodec], None]:
    """Train has shards of 3, 3 and 2 documents."""

    def run(codec: CountingCodec) -> None:
        monkeypatch.setattr(encoding, "open_codec", lambda _: codec)
        LocalEngine(1).run(Encoding(material, COUNTS, shard_utterances=3))

    return run


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_utterance_becomes_a_document_of_its_split_in_order(encode, material: Material) -> None:
    codec = CountingCodec()
    encode(codec)
    assert codec.n_encoded == 14
    for split, n_shards in {"train": 3, "validation": 2, "test": 1}.items():
        finish_split(material.folder / split, n_shards)
        tokens = TokenDataset.open(material.folder / split)
        with material.open() as (plan, read):
            expected = [codec.encode(torch.from_numpy(read(u))) for u in plan.utterances(split)]
        assert len(tokens) == len(expected)
        for document, codes in zip(tokens, expected, strict=True):
            assert torch.equal(VOCABULARY.tokens_to_codes(document), codes)
            assert (document[0], document[-1]) == (1, 2)


@pytest.mark.parametrize("encoded_before", [0, 3, 5, 8, 13])
def test_an_interrupted_encoding_goes_on_with_the_shards_that_are_not_whole(
    encode, material: Material, encoded_before: int
) -> None:
    with pytest.raises(OSError, match="No space left"):
        encode(CountingCodec(fail_after=encoded_before))
    before = files(material.folder)
    # Shards hold 3, 3, 2, 3, 1 and 2 utterances.
    whole = max(done for done in (0, 3, 6, 8, 11, 12) if done <= encoded_before)
    second = CountingCodec()
    encode(second)
    assert second.n_encoded == 14 - whole
    assert before.items() <= files(material.folder).items()
    third = CountingCodec(fail_after=0)
    encode(third)
    assert len(files(material.folder)) == 12


def test_a_shard_whose_writing_was_interrupted_is_encoded_again(
    encode, material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up between the second shard's data and its description."""
    from pipeline.tokens import shards

    write = shards.write_json

    def full(path: Path, value: object) -> None:
        if path.stem == "shard_00001":
            raise OSError("No space left on device")
        write(path, value)

    with monkeypatch.context() as patched:
        patched.setattr(shards, "write_json", full)
        with pytest.raises(OSError, match="No space left"):
            encode(CountingCodec())
    assert {Path(name).name for name in files(material.folder)} == {
        "shard_00000.bin",
        "shard_00000.json",
        "shard_00001.bin",
    }
    first = files(material.folder)["train/shard_00000.bin"]
    codec = CountingCodec()
    encode(codec)
    assert codec.n_encoded == 11
    assert files(material.folder)["train/shard_00000.bin"] == first
    finish_split(material.folder / "train", 3)
    assert len(TokenDataset.open(material.folder / "train")) == 8


def test_shards_are_counted_named_and_found(material: Material) -> None:
    work = Encoding(material, COUNTS, shard_utterances=3)
    assert work.n_shards == 6
    assert [work.size(number) for number in range(6)] == [3, 3, 2, 3, 1, 2]
    assert [work.name(number) for number in (0, 2, 3, 5)] == [
        "train/shard_00000", "train/shard_00002", "validation/shard_00000", "test/shard_00000",
    ]  # fmt: skip
    assert list(work.pending()) == work.missing() == list(range(6))
    with pytest.raises(IndexError):
        work.name(6)


def test_utterances_are_read_at_the_codec_s_rate_pieces_joined_by_silence(make_corpus, make_reader, make_voice) -> None:
    corpus = make_corpus({"s/a": make_voice(0.5, 1, 16000), "s/b": make_voice(0.25, 2, 16000)}, sample_rate=16000)
    read = make_reader(corpus, 8000, GAP_SECONDS)
    audio = read(Utterance("s/a+1", "s", "train", (Piece("s/a"), Piece("s/b"))))
    assert audio.dtype == np.float32
    assert len(audio) == round((0.5 + GAP_SECONDS + 0.25) * 8000)
    # The middle of the gap, out of the resampling filter's reach.
    assert np.abs(audio[4100:4300]).max() < 1e-3 < np.abs(audio).max()
    assert len(read(Utterance("s/a@0.1", "s", "train", (Piece("s/a", 0.1, 0.3),)))) == 1600
    assert len(read(Utterance("s/a", "s", "train", (Piece("s/a"),)))) == 4000


def test_a_codec_is_fitted_on_as_many_hours_as_asked_for(material: Material) -> None:
    heard: list[int] = []
    with material.open() as (plan, _):
        hours = plan.hours("train")
        utterances = list(plan.by_recording("train"))
        assert hours == pytest.approx(sum(plan[u.pieces[0].recording].seconds for u in utterances) / 3600)
    assert list(some_hours(utterances, hours, hours, seed=0)) == utterances
    for seed in range(200):
        some = list(some_hours(utterances, hours / 4, hours, seed))
        assert some == list(some_hours(utterances, hours / 4, hours, seed))
        heard.append(len(some))
    assert sum(heard) / len(heard) == pytest.approx(len(utterances) / 4, rel=0.15)
