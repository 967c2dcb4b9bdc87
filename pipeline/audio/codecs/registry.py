"""The kinds of codec: from settings to a codec fitted or loaded."""

from typing import Any

from pipeline.audio.codecs.codec import Codec, Waveforms
from pipeline.audio.codecs.configuration import CodecConfig, known_kind
from pipeline.audio.codecs.mel_rvq import MelRvqCodec
from pipeline.audio.codecs.mu_law import MuLawCodec
from pipeline.audio.codecs.pretrained import PretrainedCodec

CODECS: dict[str, Any] = {codec.kind: codec for codec in (MelRvqCodec, MuLawCodec, PretrainedCodec)}


def codec_class(kind: object) -> Any:
    """Return the codec class of a kind; raises a ValueError that lists the kinds when there is none."""
    return CODECS[known_kind(kind)]


def codec_sample_rate(config: CodecConfig) -> int:
    """Return the sample rate a codec works at before it is fitted; a pretrained one reads its model's configuration."""
    return _class_of(config).sample_rate_of(config)


def fit_codec(config: CodecConfig, waveforms: Waveforms, seed: int) -> Codec:
    """Return a codec of this configuration; only mel_rvq reads the waveforms, which are at the codec's sample rate."""
    return _class_of(config).fit(config, waveforms, seed)


def _class_of(config: CodecConfig) -> Any:
    return next(codec for codec in CODECS.values() if isinstance(config, codec.config_class))
