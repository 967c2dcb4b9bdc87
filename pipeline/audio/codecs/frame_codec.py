"""What codecs of one book have in common that are their settings alone: no frame needs its neighbours."""

import math
from dataclasses import asdict
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipeline.audio.codecs.codec import Codec, Waveforms, checked_audio, checked_tensors
from pipeline.audio.codecs.configuration import FrameConfig
from pipeline.configuration.settings import read_settings


class FrameCodec:
    """A codec without weights, of one code a frame; a subclass brings its `kind`, `encode` and `decode`.

    Args:
        config: a `FrameConfig`, or, where the properties are a subclass's own, any with a `sample_rate`.
    """

    kind: str
    config_class: Any = FrameConfig
    n_codebooks = 1

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def fit(cls, config: Any, waveforms: Waveforms, seed: int) -> Self:
        """Return the codec; there is nothing to fit, and the waveforms stay unread."""
        return cls(config)

    @classmethod
    def restore(cls, fields: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild the codec from what `state` returned; raises a ValueError that names the field at fault."""
        checked_tensors(tensors, {})
        return cls(read_settings(cls.config_class, fields["config"], "codec"))

    @staticmethod
    def sample_rate_of(config: Any) -> int:
        """Return the sample rate a codec of this configuration works at."""
        return int(config.sample_rate)

    @property
    def sample_rate(self) -> int:
        """Samples a second."""
        return self.sample_rate_of(self.config)

    @property
    def codebook_size(self) -> int:
        """Codes that a frame can have."""
        return int(self.config.codebook_size)

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.config.hop_length

    def stream(self: Codec) -> "FrameStream":
        """Start a decoder that returns every frame at once: none depends on its neighbours."""
        return FrameStream(self)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the fields that `restore` takes; there are no tensors."""
        return {"kind": self.kind, "config": asdict(self.config)}, {}


def frames_of(audio: Tensor, n_samples: int) -> Tensor:
    """Audio [S] in frames [F, n_samples], the last one filled up with silence; empty audio has none.

    Raises:
        ValueError: it is no mono floating-point audio.
    """
    audio = checked_audio(audio)
    n_frames = math.ceil(len(audio) / n_samples)
    return pad(audio, (0, n_frames * n_samples - len(audio))).reshape(n_frames, n_samples)


class FrameStream:
    """A `StreamDecoder` without delay."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def push(self, codes: Tensor) -> Tensor:
        """Return the samples of codes [f, Q]."""
        return self._codec.decode(codes)

    def finish(self) -> Tensor:
        """Return nothing: no sample was held back."""
        return torch.zeros(0)
