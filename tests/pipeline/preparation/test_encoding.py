from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.audio.codecs.configuration import MuLawConfig
from pipeline.audio.codecs.mu_law import MuLawCodec
from pipeline.audio.utterances import Piece, Utterance
from pipeline.preparation.encoding import encode_splits
from pipeline.preparation.utterance_reader import UtteranceReader
from pipeline.tokens.shards import TokenDataset, finish_split
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


@pytest.fixture
def reader(make_corpus, make_reader, make_voice) -> UtteranceReader:
    corpus = make_corpus({f"s/{i:02}": make_voice(0.05 + 0.01 * i, i) for i in range(14)})
    return make_reader(corpus, 8000, GAP_SECONDS)


def plan(names: range, split: str) -> list[Utterance]:
    return [Utterance(f"s/{i:02}", "s", split, (Piece(f"s/{i:02}"),)) for i in names]


# Interleaved, as a plan is: train has shards of 3, 3 and 2 documents.
UTTERANCES = [*plan(range(4), "train"), *plan(range(8, 12), "validation"), *plan(range(4, 8), "train"),
              *plan(range(12, 14), "test")]  # fmt: skip


@pytest.fixture
def encode(reader: UtteranceReader, tmp_path: Path) -> Callable[[CountingCodec], None]:
    return lambda codec: encode_splits(UTTERANCES, reader, codec, VOCABULARY, tmp_path, shard_utterances=3, workers=1)


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_utterance_becomes_a_document_of_its_split_in_order(encode, reader, tmp_path: Path) -> None:
    codec = CountingCodec()
    encode(codec)
    assert codec.n_encoded == 14
    for split, n_shards in {"train": 3, "validation": 2, "test": 1}.items():
        finish_split(tmp_path / split, n_shards)
        tokens = TokenDataset.open(tmp_path / split)
        expected = [codec.encode(torch.from_numpy(reader(u))) for u in UTTERANCES if u.split == split]
        assert len(tokens) == len(expected)
        for document, codes in zip(tokens, expected, strict=True):
            assert torch.equal(VOCABULARY.tokens_to_codes(document), codes)
            assert (document[0], document[-1]) == (1, 2)


@pytest.mark.parametrize("encoded_before", [0, 3, 5, 8, 13])
def test_an_interrupted_encoding_goes_on_with_the_shards_that_are_not_whole(
    encode, tmp_path: Path, encoded_before: int
) -> None:
    with pytest.raises(OSError, match="No space left"):
        encode(CountingCodec(fail_after=encoded_before))
    before = files(tmp_path)
    # Shards hold 3, 3, 2, 3, 1 and 2 utterances.
    whole = max(done for done in (0, 3, 6, 8, 11, 12) if done <= encoded_before)
    second = CountingCodec()
    encode(second)
    assert second.n_encoded == 14 - whole
    assert before.items() <= files(tmp_path).items()
    third = CountingCodec(fail_after=0)
    encode(third)
    assert len(files(tmp_path)) == 12


def test_a_shard_whose_writing_was_interrupted_is_encoded_again(
    encode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    assert {Path(name).name for name in files(tmp_path)} == {"shard_00000.bin", "shard_00000.json", "shard_00001.bin"}
    first = files(tmp_path)["train/shard_00000.bin"]
    codec = CountingCodec()
    encode(codec)
    assert codec.n_encoded == 11
    assert files(tmp_path)["train/shard_00000.bin"] == first
    finish_split(tmp_path / "train", 3)
    assert len(TokenDataset.open(tmp_path / "train")) == 8


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
