"""The kinds of codec, by the name that `codec.kind` and codec.json have of them."""

from typing import Any

from pipeline.audio.codecs.configuration import known_kind
from pipeline.audio.codecs.mel_rvq import MelRvqCodec
from pipeline.audio.codecs.mu_law import MuLawCodec
from pipeline.audio.codecs.pretrained import PretrainedCodec

CODECS: dict[str, Any] = {codec.kind: codec for codec in (MelRvqCodec, MuLawCodec, PretrainedCodec)}


def codec_class(kind: object) -> Any:
    """Return the codec class of a kind; raises a ValueError that lists the kinds when there is none."""
    return CODECS[known_kind(kind)]
