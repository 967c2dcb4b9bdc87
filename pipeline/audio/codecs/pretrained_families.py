"""EnCodec, DAC and Mimi as `transformers` has them, behind one small interface."""

from typing import Any, Protocol

from torch import Tensor


class Family(Protocol):
    """What differs between the neural codecs; `config` and `model` are those of `transformers`."""

    model_class: str
    stream_lookahead_frames: int

    def hop_length(self, config: Any) -> int:
        """Return the samples a frame stands for."""

    def n_codebooks(self, config: Any) -> tuple[int, int]:
        """Return the fewest and the most codebooks the model can use."""

    def unsupported(self, config: Any) -> str | None:
        """Return why this model cannot be used, or None when it can."""

    def encode(self, model: Any, audio: Tensor, n_codebooks: int) -> Tensor:
        """Return the codes [1, Q, F] of audio [1, 1, F * hop_length]."""

    def decode(self, model: Any, codes: Tensor) -> Tensor:
        """Return the audio [1, …, S] of codes [1, Q, F]."""


class EncodecFamily:
    """EnCodec (Défossez et al., 2022), the mono models that encode an utterance in one piece."""

    model_class = "EncodecModel"
    stream_lookahead_frames = 0

    def hop_length(self, config: Any) -> int:
        """Return the product of the encoder's strides."""
        return config.hop_length

    def n_codebooks(self, config: Any) -> tuple[int, int]:
        """Return one, and what the highest bandwidth pays for."""
        return 1, config.num_quantizers

    def unsupported(self, config: Any) -> str | None:
        """Refuse the stereo models, which cut the audio into scaled chunks and have no single row of codes."""
        if config.audio_channels != 1 or config.chunk_length_s is not None or config.normalize:
            return "it is stereo, chunked or scaled; use a mono model such as facebook/encodec_24khz"
        if not config.use_causal_conv:
            return "its convolutions are not causal; use a causal model such as facebook/encodec_24khz"
        return None

    def encode(self, model: Any, audio: Tensor, n_codebooks: int) -> Tensor:
        """Encode at the lowest bandwidth that has enough codebooks, and keep the first of them."""
        bandwidths = sorted(model.config.target_bandwidths)
        capacity = model.quantizer.get_num_quantizers_for_bandwidth
        bandwidth = next(bandwidth for bandwidth in bandwidths if capacity(bandwidth) >= n_codebooks)
        return model.encode(audio, bandwidth=bandwidth).audio_codes[0, :, :n_codebooks]

    def decode(self, model: Any, codes: Tensor) -> Tensor:
        """Decode one unscaled chunk."""
        return model.decode(codes[None], [None]).audio_values


class DacFamily:
    """The Descript Audio Codec (Kumar et al., 2023)."""

    model_class = "DacModel"
    # Its convolutions look both ways, ten frames at the published strides.
    stream_lookahead_frames = 12

    def hop_length(self, config: Any) -> int:
        """Return the product of the encoder's strides."""
        return config.hop_length

    def n_codebooks(self, config: Any) -> tuple[int, int]:
        """Return one, and all that the model has."""
        return 1, config.n_codebooks

    def unsupported(self, config: Any) -> str | None:
        """Every DAC is mono and decodes any number of codebooks."""
        return None

    def encode(self, model: Any, audio: Tensor, n_codebooks: int) -> Tensor:
        """Encode with the first codebooks."""
        return model.encode(audio, n_quantizers=n_codebooks).audio_codes

    def decode(self, model: Any, codes: Tensor) -> Tensor:
        """Decode."""
        return model.decode(audio_codes=codes).audio_values


class MimiFamily:
    """Mimi (Défossez et al., 2024): semantic codebooks first, then the acoustic ones."""

    model_class = "MimiModel"
    stream_lookahead_frames = 0

    def hop_length(self, config: Any) -> int:
        """Return sample rate over frame rate."""
        return round(config.sampling_rate / config.frame_rate)

    def n_codebooks(self, config: Any) -> tuple[int, int]:
        """Return the semantic codebooks, which are never left out, and all of them."""
        return config.num_semantic_quantizers, config.num_quantizers

    def unsupported(self, config: Any) -> str | None:
        """Refuse what is not causal or not mono."""
        if config.audio_channels != 1 or not config.use_causal_conv:
            return "it is not a causal mono model; use one such as kyutai/mimi"
        return None

    def encode(self, model: Any, audio: Tensor, n_codebooks: int) -> Tensor:
        """Encode with the first codebooks."""
        return model.encode(audio, num_quantizers=n_codebooks).audio_codes

    def decode(self, model: Any, codes: Tensor) -> Tensor:
        """Decode."""
        return model.decode(codes).audio_values


# By the `model_type` of the model's own configuration.
FAMILIES: dict[str, Family] = {"encodec": EncodecFamily(), "dac": DacFamily(), "mimi": MimiFamily()}
