"""Audio to codes and back."""

from pipeline.audio.codecs.codec import Codec, StreamDecoder
from pipeline.audio.codecs.registry import CodecConfig, codec_sample_rate, codec_settings, fit_codec
from pipeline.audio.codecs.storage import load_codec, save_codec

__all__ = [
    "Codec",
    "CodecConfig",
    "StreamDecoder",
    "codec_sample_rate",
    "codec_settings",
    "fit_codec",
    "load_codec",
    "save_codec",
]
