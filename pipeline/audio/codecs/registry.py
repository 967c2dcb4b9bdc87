"""The kinds of codec: from settings to a codec fitted or loaded."""

from collections.abc import Mapping
from typing import Any

from pipeline.audio.codecs.codec import Codec, Waveforms
from pipeline.audio.codecs.mel_rvq import MelRvqCodec, MelRvqConfig
from pipeline.audio.codecs.mu_law import MuLawCodec, MuLawConfig
from pipeline.audio.codecs.pretrained import PretrainedCodec, PretrainedConfig
from pipeline.configuration.settings import near_matches, read_settings

CodecConfig = MelRvqConfig | MuLawConfig | PretrainedConfig

CODECS: dict[str, Any] = {codec.kind: codec for codec in (MelRvqCodec, MuLawCodec, PretrainedCodec)}


def codec_class(kind: object) -> Any:
    """Return the codec class of a kind; raises a ValueError that lists the kinds when there is none."""
    if kind not in CODECS:
        raise ValueError(f"codec.kind={kind} is unknown; {near_matches(str(kind), list(CODECS))}")
    return CODECS[str(kind)]


def codec_settings(options: Mapping[str, Any]) -> CodecConfig:
    """Return the validated configuration of the `codec` group, whose `kind` chooses the dataclass.

    Raises:
        ValueError: `kind` or a setting is unknown, missing or invalid; the message names `codec.<field>`.
    """
    if "kind" not in options:
        raise ValueError(f"codec.kind is missing; {near_matches('', list(CODECS))}")
    settings = {name: value for name, value in options.items() if name != "kind"}
    return read_settings(codec_class(options["kind"]).config_class, settings, "codec")


def codec_sample_rate(config: CodecConfig) -> int:
    """Return the sample rate a codec works at before it is fitted; a pretrained one reads its model's configuration."""
    return _class_of(config).sample_rate_of(config)


def fit_codec(config: CodecConfig, waveforms: Waveforms, seed: int) -> Codec:
    """Return a codec of this configuration; only mel_rvq reads the waveforms, which are at the codec's sample rate."""
    return _class_of(config).fit(config, waveforms, seed)


def _class_of(config: CodecConfig) -> Any:
    return next(codec for codec in CODECS.values() if isinstance(config, codec.config_class))
