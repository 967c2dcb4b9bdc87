"""Utterances encoded one after another on a CPU, or many at once on a GPU."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pipeline.audio.codecs.codec import Codec
from pipeline.audio.codecs.configuration import CodecUse
from pipeline.audio.resampling import Sound, resample, resample_many

# Batches that are sorted by length together: sounds wait in memory, as many samples as these have.
SORTED_BATCHES = 8


@runtime_checkable
class EncodesMany(Protocol):
    """A codec that a GPU helps."""

    def encode_many(self, audios: Sequence[Tensor]) -> list[Tensor]:
        """Return the codes [F, Q] of each of several audios [S], none of them empty, computed where these lie."""


def encode_all(codec: Codec, sounds: Iterable[Sound], use: CodecUse) -> Iterator[Tensor]:
    """Yield the int64 codes [F, Q] of one sound after another, on the CPU.

    A GPU is given sounds of about the same length together, `use.batch_seconds` of them with the silence that makes
    them equally long. Codes differ from a CPU's where two entries of a book are equally near but for rounding.

    Raises:
        ValueError: the GPU that `use.device` asks for is not there, or does not help this codec.
    """
    if use.device == "cpu":
        return (codec.encode(torch.from_numpy(resample(*sound, codec.sample_rate))) for sound in sounds)
    if not isinstance(codec, EncodesMany):
        raise ValueError(
            f"codec.device is {use.device}, but this kind of codec encodes on a CPU alone; set codec.device=cpu."
        )
    if not torch.cuda.is_available():
        raise ValueError("codec.device is cuda, but torch sees no GPU; set codec.device=cpu to encode on the CPU.")
    return encode_sorted(codec, sounds, torch.device(use.device), round(use.batch_seconds * codec.sample_rate))


def encode_sorted(codec: Codec, sounds: Iterable[Sound], device: torch.device, batch_samples: int) -> Iterator[Tensor]:
    """Yield the codes of one sound after another, resampled and encoded on `device` with others of similar length.

    Args:
        codec: that `EncodesMany`.
        sounds: none of them empty.
        device: what encodes.
        batch_samples: of a batch at the codec's rate, with the silence behind shorter sounds; one longer sound is a
            batch by itself.
    """
    waiting: list[Sound] = []
    n_waiting = 0
    for sound in chain(sounds, [None]):
        if sound is not None:
            waiting.append(sound)
            n_waiting += len(sound[0])
        if waiting and (sound is None or n_waiting >= SORTED_BATCHES * batch_samples):
            yield from _encode_waiting(codec, waiting, device, batch_samples)
            waiting, n_waiting = [], 0


def _encode_waiting(codec: Codec, sounds: list[Sound], device: torch.device, batch_samples: int) -> list[Tensor]:
    assert isinstance(codec, EncodesMany)
    codes: list[Tensor] = [torch.empty(0)] * len(sounds)
    lengths = [len(samples) * codec.sample_rate / rate for samples, rate in sounds]
    # A GPU's convolutions would keep ten bits of what they multiply (TF32), and find other entries than a CPU.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for numbers in _batches(lengths, batch_samples):
            audios = resample_many([sounds[number] for number in numbers], codec.sample_rate, device)
            for number, one in zip(numbers, codec.encode_many(audios), strict=True):
                codes[number] = one
    return codes


def _batches(lengths: Sequence[float], batch_samples: int) -> Iterator[list[int]]:
    """The numbers of sounds, by ascending length; the last of a batch is its longest."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: lengths[number]):
        if batch and (len(batch) + 1) * lengths[number] > batch_samples:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
