"""Mu-law companding (ITU-T G.711's curve): one code a sample, nothing fitted."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torchaudio.functional import mu_law_decoding, mu_law_encoding

from pipeline.audio.codecs.codec import Waveforms, checked_audio, checked_codes, checked_tensors, normalise_loudness
from pipeline.audio.codecs.configuration import MuLawConfig
from pipeline.configuration.settings import read_settings


class MuLawCodec:
    """One codebook of `quantization_channels` levels, spaced finely near zero."""

    kind = "mu_law"
    config_class = MuLawConfig
    n_codebooks = 1

    def __init__(self, config: MuLawConfig) -> None:
        self.config = config

    @classmethod
    def fit(cls, config: MuLawConfig, waveforms: Waveforms, seed: int) -> "MuLawCodec":
        """Return the codec; there is nothing to fit, and the waveforms stay unread."""
        return cls(config)

    @classmethod
    def restore(cls, fields: dict[str, Any], tensors: dict[str, Tensor]) -> "MuLawCodec":
        """Rebuild the codec from what `state` returned; raises a ValueError that names the field at fault."""
        checked_tensors(tensors, {})
        return cls(read_settings(MuLawConfig, fields["config"], "codec"))

    @staticmethod
    def sample_rate_of(config: MuLawConfig) -> int:
        """Return the sample rate a codec of this configuration works at."""
        return config.sample_rate

    @property
    def sample_rate(self) -> int:
        """Samples a second."""
        return self.config.sample_rate

    @property
    def codebook_size(self) -> int:
        """Levels a sample can take."""
        return self.config.quantization_channels

    @property
    def frame_rate(self) -> float:
        """Frames a second: one a sample."""
        return float(self.config.sample_rate)

    def encode(self, audio: Tensor) -> Tensor:
        """Return the codes [S, 1] of audio [S], brought to the configured loudness first."""
        audio = normalise_loudness(checked_audio(audio), self.config.loudness_db)
        return mu_law_encoding(audio.clamp(-1, 1), self.codebook_size)[:, None]

    def decode(self, codes: Tensor) -> Tensor:
        """Return the audio [F] of codes [F, 1]."""
        codes = checked_codes(codes, self.n_codebooks, self.codebook_size)
        return mu_law_decoding(codes[:, 0], self.codebook_size).float()

    def stream(self) -> "MuLawStream":
        """Start a decoder that returns every sample at once: none depends on its neighbours."""
        return MuLawStream(self)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the fields that `restore` takes; there are no tensors."""
        return {"kind": self.kind, "config": asdict(self.config)}, {}


class MuLawStream:
    """A `StreamDecoder` without delay."""

    def __init__(self, codec: MuLawCodec) -> None:
        self._codec = codec

    def push(self, codes: Tensor) -> Tensor:
        """Return the samples [f] of codes [f, 1]."""
        return self._codec.decode(codes)

    def finish(self) -> Tensor:
        """Return nothing: no sample was held back."""
        return torch.zeros(0)
