"""The second pass: utterances to token shards, resumable a shard at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pipeline.audio.codecs.codec import Codec
from pipeline.audio.corpora.corpus import Corpus, Recording
from pipeline.audio.reading import resample
from pipeline.audio.splitting import SPLITS
from pipeline.audio.utterances import Utterance, assemble
from pipeline.plumbing.worker_processes import map_parallel
from pipeline.tokens.shards import shard_path, write_shard
from pipeline.tokens.vocabulary import Vocabulary


@dataclass(frozen=True)
class UtteranceReader:
    """Reads utterances out of a corpus, at one sample rate.

    Attributes:
        corpus: where recordings are read from.
        recordings: its recordings, by id.
        sample_rate: of what is returned, in Hz.
        gap_seconds: the silence between joined recordings.
    """

    corpus: Corpus
    recordings: Mapping[str, Recording]
    sample_rate: int
    gap_seconds: float

    def __call__(self, utterance: Utterance) -> np.ndarray:
        """The utterance's samples [S], float32 mono."""
        audio, rate = assemble(utterance, lambda name: self.corpus.read(self.recordings[name]), self.gap_seconds)
        return resample(audio, rate, self.sample_rate)


def encode_splits(
    utterances: Sequence[Utterance],
    read: UtteranceReader,
    codec: Codec,
    vocabulary: Vocabulary,
    folder: Path,
    shard_utterances: int,
    workers: int | None,
) -> None:
    """Write `folder`/{train,validation,test}/shard_*.bin; shards that an earlier, interrupted call wrote stay."""
    jobs = [
        (shard_path(folder / split, index), chunk)
        for split in SPLITS
        for index, chunk in enumerate(_chunks([u for u in utterances if u.split == split], shard_utterances))
    ]
    pending = [job for job in jobs if not job[0].with_suffix(".json").exists()]
    encode = partial(_encode_shard, read=read, codec=codec, vocabulary=vocabulary)
    for _ in map_parallel(encode, pending, workers, "encoding", "shard"):
        pass


def _encode_shard(
    job: tuple[Path, Sequence[Utterance]], read: UtteranceReader, codec: Codec, vocabulary: Vocabulary
) -> None:
    path, utterances = job
    documents = [vocabulary.document(codec.encode(torch.from_numpy(read(utterance)))) for utterance in utterances]
    write_shard(path, documents, vocabulary)


def _chunks(items: Sequence[Utterance], size: int) -> Iterator[Sequence[Utterance]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
