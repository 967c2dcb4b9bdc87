"""Utterances encoded one after another on a CPU, or many at once on a GPU."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pipeline.audio.codecs.codec import Codec
from pipeline.audio.codecs.configuration import CodecUse

# Batches that are sorted by length together: utterances wait in memory for so many.
SORTED_BATCHES = 8


@runtime_checkable
class EncodesMany(Protocol):
    """A codec that a GPU helps."""

    def encode_many(self, audios: Sequence[Tensor], device: torch.device) -> list[Tensor]:
        """Return the codes [F, Q] of each of several audios [S], none of them empty, computed on `device`."""


def encode_all(codec: Codec, audios: Iterable[Tensor], use: CodecUse) -> Iterator[Tensor]:
    """Yield the int64 codes [F, Q] of one audio [S] after another, on the CPU.

    A GPU is given audios of about the same length together, `use.batch_seconds` of them with the silence that makes
    them equally long. Codes differ from a CPU's where two entries of a book are equally near but for rounding.

    Raises:
        ValueError: the GPU that `use.device` asks for is not there, or does not help this codec.
    """
    if use.device == "cpu":
        return map(codec.encode, audios)
    if not isinstance(codec, EncodesMany):
        raise ValueError(
            f"codec.device is {use.device}, but this kind of codec encodes on a CPU alone; set codec.device=cpu."
        )
    if not torch.cuda.is_available():
        raise ValueError("codec.device is cuda, but torch sees no GPU; set codec.device=cpu to encode on the CPU.")
    return encode_sorted(codec, audios, torch.device(use.device), round(use.batch_seconds * codec.sample_rate))


def encode_sorted(codec: Codec, audios: Iterable[Tensor], device: torch.device, batch_samples: int) -> Iterator[Tensor]:
    """Yield the codes of one audio after another, encoded on `device` in batches of audios of similar length.

    Args:
        codec: that `EncodesMany`.
        audios: [S] each.
        device: what encodes.
        batch_samples: of a batch, with the silence behind shorter audios; one longer audio is a batch by itself.
    """
    assert isinstance(codec, EncodesMany)
    waiting: list[Tensor] = []
    n_waiting = 0
    for audio in chain(audios, [None]):
        if audio is not None:
            waiting.append(audio)
            n_waiting += len(audio)
        if waiting and (audio is None or n_waiting >= SORTED_BATCHES * batch_samples):
            yield from _encode_waiting(codec, waiting, device, batch_samples)
            waiting, n_waiting = [], 0


def _encode_waiting(codec: EncodesMany, audios: list[Tensor], device: torch.device, batch_samples: int) -> list[Tensor]:
    codes: list[Tensor] = [torch.empty(0)] * len(audios)
    for numbers in _batches([len(audio) for audio in audios], batch_samples):
        encoded = codec.encode_many([audios[number] for number in numbers], device)
        for number, one in zip(numbers, encoded, strict=True):
            codes[number] = one
    return codes


def _batches(lengths: Sequence[int], batch_samples: int) -> Iterator[list[int]]:
    """The numbers of audios, by ascending length; the last of a batch is its longest."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: lengths[number]):
        if batch and (len(batch) + 1) * lengths[number] > batch_samples:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
