"""The second pass: utterances to token shards, resumable a shard at a time.

Pieces of long recordings are scattered over the shards. So each long recording is decoded and encoded in one go first,
into a shard of its own in a folder beside, and the shards take its documents from there.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pipeline.audio.codecs.codec import Codec
from pipeline.audio.splitting import SPLITS
from pipeline.audio.utterances import Utterance
from pipeline.plumbing.worker_processes import map_parallel
from pipeline.preparation.utterance_reader import UtteranceReader, by_recording, cut_from
from pipeline.tokens.shards import TokenDataset, finish_split, shard_path, write_shard
from pipeline.tokens.vocabulary import Vocabulary

LONG = "long_recordings"


@dataclass(frozen=True)
class _Encoded:
    """Documents that are encoded already: where they lie, by the utterance."""

    tokens: TokenDataset | None = None
    documents: Mapping[str, int] = field(default_factory=dict)


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
    if pending:
        encode = partial(_encode_shard, read=read, codec=codec, vocabulary=vocabulary)
        encoded = _encode_long(utterances, encode, folder / LONG, workers)
        for _ in map_parallel(partial(encode, encoded=encoded), pending, workers, "encoding", "shard"):
            pass
    shutil.rmtree(folder / LONG, ignore_errors=True)


def _encode_long(
    utterances: Sequence[Utterance], encode: "partial[None]", folder: Path, workers: int | None
) -> _Encoded:
    """Encode the pieces of each long recording, in one pass over it."""
    pieces: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        if (name := cut_from(utterance)) is not None:
            pieces.setdefault(name, []).append(utterance)
    jobs = [(shard_path(folder, index), by_recording(group)) for index, group in enumerate(pieces.values())]
    if not jobs:
        return _Encoded()
    pending = [job for job in jobs if not job[0].with_suffix(".json").exists()]
    for _ in map_parallel(encode, pending, workers, "encoding", "long recording"):
        pass
    finish_split(folder, len(jobs))
    documents = [utterance.id for _, group in jobs for utterance in group]
    return _Encoded(TokenDataset.open(folder), {name: number for number, name in enumerate(documents)})


def _encode_shard(
    job: tuple[Path, Sequence[Utterance]],
    read: UtteranceReader,
    codec: Codec,
    vocabulary: Vocabulary,
    encoded: _Encoded | None = None,
) -> None:
    path, utterances = job
    known = encoded or _Encoded()
    audio = read.many([utterance for utterance in utterances if utterance.id not in known.documents])
    documents = []
    for utterance in utterances:
        if known.tokens is not None and utterance.id in known.documents:
            documents.append(known.tokens[known.documents[utterance.id]])
        else:
            documents.append(_compact(vocabulary.document(codec.encode(torch.from_numpy(next(audio))))))
    write_shard(path, documents, vocabulary)


def _compact(document: np.ndarray) -> np.ndarray:
    """Tokens in 32 bits: a long recording's documents are in memory together."""
    return document.astype(np.uint32)


def _chunks(items: Sequence[Utterance], size: int) -> Iterator[Sequence[Utterance]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
