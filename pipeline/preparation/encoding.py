"""The second pass: a codec, then utterances to token shards, resumable a shard at a time.

Pieces of long recordings are scattered over the shards. So each long recording is decoded and encoded in one go first,
into a shard of its own in a folder beside, and the shards take its documents from there.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pipeline.audio.codecs.batches import encode_all
from pipeline.audio.codecs.codec import Codec
from pipeline.audio.codecs.configuration import CodecUse, codec_settings
from pipeline.audio.codecs.registry import codec_class
from pipeline.audio.codecs.storage import load_codec, save_codec
from pipeline.audio.corpora.corpus import Corpus
from pipeline.audio.resampling import Sound
from pipeline.audio.utterances import Utterance
from pipeline.plumbing.fingerprint import fingerprint
from pipeline.preparation.plan import Plan
from pipeline.preparation.sharded import ShardedWork
from pipeline.preparation.utterance_reader import UtteranceReader, cut_from
from pipeline.provenance.exports import CODEC
from pipeline.tokens.shards import read_document, shard_path, write_shard
from pipeline.tokens.vocabulary import Vocabulary

LONG = "long_recordings"


@dataclass(frozen=True)
class Material:
    """What utterances are made from, and where to.

    Attributes:
        corpus: where recordings are read from.
        plan: the file that says what is to be prepared.
        folder: where prepared data grow.
        sample_rate: the codec's, in Hz.
        gap_seconds: the silence between joined recordings.
        use: how the codec encodes.
    """

    corpus: Corpus
    plan: Path
    folder: Path
    sample_rate: int
    gap_seconds: float
    use: CodecUse

    @contextmanager
    def open(self) -> Iterator[tuple[Plan, UtteranceReader]]:
        """Open the plan, and a reader of its utterances."""
        with Plan.open(self.plan) as plan:
            yield plan, UtteranceReader(self.corpus, plan, self.sample_rate, self.gap_seconds)

    @property
    def codec(self) -> Codec:
        """The fitted codec."""
        return open_codec(self.folder / CODEC)

    def documents(self, sounds: Iterable[Sound]) -> Iterator[np.ndarray]:
        """The tokens of one utterance after another, in 32 bits: a shard's documents are in memory together."""
        vocabulary = vocabulary_of(self.codec)
        for codes in encode_all(self.codec, sounds, self.use):
            yield vocabulary.document(codes).astype(np.uint32)


@dataclass(frozen=True)
class Fitting(ShardedWork):
    """Fits the codec on the train split, or on as many hours of it as `codec.fit_hours` says.

    Attributes:
        material: what it is fitted on.
        options: the `codec` group.
        seed: of its random choices.
    """

    material: Material
    options: Mapping[str, Any]
    seed: int

    description: ClassVar[str] = "fitting"
    unit: ClassVar[str] = "codec"
    n_shards: ClassVar[int] = 1

    def name(self, number: int) -> str:
        """There is one."""
        return "the codec"

    def written(self) -> set[int]:
        """The codec, once it is there."""
        return {0} if (self.material.folder / CODEC / "codec.json").exists() else set()

    def __call__(self, number: int) -> None:
        """Fit and save."""
        with self.material.open() as (plan, read):
            codec = codec_class(self.options["kind"]).fit(
                codec_settings(self.options), lambda: self._waveforms(plan, read), self.seed
            )
        save_codec(codec, self.material.folder / CODEC)

    def _waveforms(self, plan: Plan, read: UtteranceReader) -> Iterator[Tensor]:
        """The samples of one train utterance after another; each recording is read once."""
        utterances = plan.by_recording("train")
        if self.material.use.fit_hours is not None:
            utterances = some_hours(utterances, self.material.use.fit_hours, plan.hours("train"), self.seed)
        for audio in read.many(utterances):
            yield torch.from_numpy(audio)


@dataclass(frozen=True)
class EncodingLong(ShardedWork):
    """Encodes the pieces of each long recording, in one pass over it.

    Attributes:
        material: what is encoded.
        n_recordings: long ones.
    """

    material: Material
    n_recordings: int

    description: ClassVar[str] = "encoding"
    unit: ClassVar[str] = "long recording"
    step: ClassVar[str] = "encode_long"

    @property
    def n_shards(self) -> int:
        """Each long recording is one."""
        return self.n_recordings

    def name(self, number: int) -> str:
        """The shard's file."""
        return f"{LONG}/{shard_path(self.material.folder, number).stem}"

    def written(self) -> set[int]:
        """The recordings that are encoded."""
        return _written(self.material.folder / LONG)

    def __call__(self, number: int) -> None:
        """Encode a long recording."""
        with self.material.open() as (plan, read):
            documents = list(self.material.documents(read.recorded(plan.pieces(number))))
        write_shard(shard_path(self.material.folder / LONG, number), documents, vocabulary_of(self.material.codec))


@dataclass(frozen=True)
class Encoding(ShardedWork):
    """Encodes utterances, so many a shard.

    Attributes:
        material: what is encoded.
        counts: utterances of each split.
        shard_utterances: utterances of each shard but a split's last.
    """

    material: Material
    counts: Mapping[str, int]
    shard_utterances: int

    description: ClassVar[str] = "encoding"
    unit: ClassVar[str] = "utterance"
    step: ClassVar[str] = "encode"

    @property
    def n_shards(self) -> int:
        """How many shards there are, those of one split after those of another."""
        return sum(map(self.shards_of, self.counts))

    def shards_of(self, split: str) -> int:
        """How many shards the utterances of a split fill."""
        return -(-self.counts[split] // self.shard_utterances)

    def size(self, number: int) -> int:
        """Utterances of a shard."""
        split, index = self._place(number)
        return min(self.shard_utterances, self.counts[split] - index * self.shard_utterances)

    def name(self, number: int) -> str:
        """The shard's file."""
        split, index = self._place(number)
        return f"{split}/{shard_path(self.material.folder, index).stem}"

    def written(self) -> set[int]:
        """The shards that are whole."""
        first, written = 0, set[int]()
        for split in self.counts:
            written |= {first + index for index in _written(self.material.folder / split)}
            first += self.shards_of(split)
        return written

    def __call__(self, number: int) -> None:
        """Encode a shard."""
        split, index = self._place(number)
        start = index * self.shard_utterances
        with self.material.open() as (plan, read):
            utterances = list(plan.utterances(split, start, start + self.shard_utterances))
            whole = (utterance for utterance in utterances if cut_from(utterance) is None)
            encoded = self.material.documents(read.recorded(whole))
            documents = [
                self._piece(plan, utterance) if cut_from(utterance) else next(encoded) for utterance in utterances
            ]
        write_shard(shard_path(self.material.folder / split, index), documents, vocabulary_of(self.material.codec))

    def _piece(self, plan: Plan, utterance: Utterance) -> np.ndarray:
        """The document of a piece of a long recording, which is encoded already."""
        recording, piece = plan.place(utterance)
        return read_document(shard_path(self.material.folder / LONG, recording), piece)

    def _place(self, number: int) -> tuple[str, int]:
        """The split of a shard, and its number there."""
        for split in self.counts:
            if number < self.shards_of(split):
                return split, number
            number -= self.shards_of(split)
        raise IndexError(f"there are {self.n_shards} shards, and no shard {number} after the last.")


def some_hours(utterances: Iterable[Utterance], hours: float, of_hours: float, seed: int) -> Iterator[Utterance]:
    """About as many `hours` of utterances that last `of_hours`, each chosen by itself, by its name and `seed`."""
    last = int(hours / of_hours * 2**64) if of_hours else 0
    return (utterance for utterance in utterances if int(fingerprint(seed, utterance.id)[:16], 16) < last)


@lru_cache(maxsize=1)
def open_codec(folder: Path) -> Codec:
    """The codec that is saved in a folder, read once by each process: a large one takes seconds."""
    return load_codec(folder)


def vocabulary_of(codec: Codec) -> Vocabulary:
    """The vocabulary in which a codec's codes are tokens."""
    return Vocabulary(codec.n_codebooks, codec.codebook_size)


def _written(folder: Path) -> set[int]:
    """The numbers of the shards in a folder; the description of each is written last."""
    return {int(path.stem.removeprefix("shard_")) for path in folder.glob("shard_*.json")}
