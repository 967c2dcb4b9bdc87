"""The `codec` group of the configuration: one dataclass a kind. Light: needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pipeline.audio.codecs.settings import n_empty_bands, require_integer, require_loudness, require_number
from pipeline.configuration.settings import near_matches, read_settings
from pipeline.plumbing.nested import ABSENT

FASTEST_SAMPLE_RATE = 768_000
MOST_CODEBOOKS = 256
# A codec may come from a stranger: beyond these it would take a machine's time or memory, and be no better.
MEL_RVQ_RANGES = {
    "sample_rate": (1, FASTEST_SAMPLE_RATE),
    "n_fft": (4, 2**16),
    "hop_length": (1, 2**15),
    "n_mels": (1, 1024),
    "n_codebooks": (1, MOST_CODEBOOKS),
    "codebook_size": (2, 2**16),
    # scikit-learn's mini-batches fail with fewer than two steps.
    "kmeans_iterations": (2, 10_000),
    "griffin_lim_iterations": (1, 1000),
    "stream_chunk_frames": (1, 10_000),
    "stream_lookahead_frames": (0, 10_000),
    "stream_context_frames": (0, 10_000),
}
MOST_FIT_FRAMES = 10**7


@dataclass(frozen=True)
class MelRvqConfig:
    """The settings of conf/codec/_mel_rvq.yaml.

    Frequencies are in Hz, `loudness_db` is an RMS level in dB re full scale, `log_floor` a mel magnitude, the
    `stream_*_frames` count frames of `hop_length` samples.
    """

    sample_rate: int
    n_fft: int
    hop_length: int
    n_mels: int
    f_min: float
    f_max: float
    log_floor: float
    loudness_db: float
    n_codebooks: int
    codebook_size: int
    fit_frames: int
    kmeans_iterations: int
    griffin_lim_iterations: int
    griffin_lim_momentum: float
    stream_chunk_frames: int
    stream_lookahead_frames: int
    stream_context_frames: int

    def __post_init__(self) -> None:
        for name, (minimum, maximum) in MEL_RVQ_RANGES.items():
            require_integer(self, name, minimum, maximum)
        require_integer(self, "fit_frames", self.codebook_size, MOST_FIT_FRAMES)
        if self.n_fft % 2 or 2 * self.hop_length > self.n_fft:
            raise ValueError(
                f"codec.n_fft={self.n_fft} must be even and at least twice codec.hop_length={self.hop_length}, "
                "so that neighbouring windows overlap by half."
            )
        require_number(self, "f_min", 0.0)
        require_number(self, "f_max", 0.0, self.sample_rate / 2)
        if self.f_min >= self.f_max:
            raise ValueError(f"codec.f_min={self.f_min} must lie below codec.f_max={self.f_max}.")
        require_number(self, "log_floor", 1e-12, 1.0)
        require_number(self, "griffin_lim_momentum", 0.0, 0.999)
        require_loudness(self)
        if n_empty := n_empty_bands(self.sample_rate, self.n_fft, self.n_mels, self.f_min, self.f_max):
            raise ValueError(
                f"codec.n_mels={self.n_mels} leaves {n_empty} mel bands without a frequency bin; "
                "lower codec.n_mels or raise codec.n_fft."
            )


@dataclass(frozen=True)
class FrameConfig:
    """The settings of a codec of one code for each `hop_length` samples, of which there are `codebook_size`."""

    sample_rate: int
    hop_length: int
    codebook_size: int

    def __post_init__(self) -> None:
        for name in ("sample_rate", "hop_length", "codebook_size"):
            require_integer(self, name, *MEL_RVQ_RANGES[name])


@dataclass(frozen=True)
class MuLawConfig:
    """The settings of conf/codec/mu_law.yaml; `loudness_db` is an RMS level in dB re full scale."""

    sample_rate: int
    quantization_channels: int
    loudness_db: float

    def __post_init__(self) -> None:
        require_integer(self, "sample_rate", 1, FASTEST_SAMPLE_RATE)
        require_integer(self, "quantization_channels", minimum=2, maximum=65536)
        require_loudness(self)


@dataclass(frozen=True)
class PretrainedConfig:
    """The settings of conf/codec/{encodec,dac,mimi}.yaml.

    `model` is a hub name or a folder that `save_pretrained` wrote; the sample rate is the model's own. `loudness_db` is
    an RMS level in dB re full scale.
    """

    model: str
    n_codebooks: int
    loudness_db: float

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ValueError(f"codec.model must be a hub name or a folder, not {self.model!r}.")
        require_integer(self, "n_codebooks", 1, MOST_CODEBOOKS)
        require_loudness(self)


@dataclass(frozen=True)
class CodecUse:
    """How prepare-data uses a codec: the settings of conf/codec/_use.yaml, of which the codec itself knows nothing.

    Attributes:
        device: encodes, `cpu` or `cuda`.
        batch_seconds: of audio that a GPU encodes at once, about; a CPU encodes one utterance after another.
        fit_hours: of the train split that a codec is fitted on, about; None: all of it.
        taken_from: prepared data or an export, a folder or its URL, whose codec is taken; None: one is fitted.
    """

    device: str = "cpu"
    batch_seconds: float = 600.0
    fit_hours: float | None = None
    taken_from: str | None = None

    def __post_init__(self) -> None:
        if self.device not in CODEC_DEVICES:
            raise ValueError(f"codec.device is {self.device!r}; choose {' or '.join(CODEC_DEVICES)}.")
        require_number(self, "batch_seconds", 1.0, 1e6)
        if self.fit_hours is not None:
            require_number(self, "fit_hours", 1e-6, 1e9)
        if self.taken_from is None:
            return
        if not self.taken_from.strip() or not self.taken_from.isprintable():
            raise ValueError(f"codec.taken_from is {self.taken_from!r}; name a folder of prepared data, or null.")
        if self.fit_hours is not None:
            raise ValueError("codec.fit_hours says how to fit a codec that codec.taken_from takes as it is; set one.")


CODEC_DEVICES = ("cpu", "cuda")
USE = tuple(field.name for field in fields(CodecUse))

CodecConfig = MelRvqConfig | FrameConfig | MuLawConfig | PretrainedConfig

# By their kind, which a codec's class has the same.
CONFIGS: dict[str, Any] = {"mel_rvq": MelRvqConfig, "mu_law": MuLawConfig, "pretrained": PretrainedConfig}


def codec_settings(options: Mapping[str, Any]) -> CodecConfig:
    """Return the validated configuration of the `codec` group, whose `kind` chooses the dataclass.

    Raises:
        ValueError: `kind` or a setting is unknown, missing or invalid; the message names `codec.<field>`.
    """
    if "kind" not in options:
        raise ValueError(f"codec.kind is missing; {near_matches('', list(CONFIGS))}")
    settings = {name: value for name, value in options.items() if name not in ("kind", *USE)}
    config: CodecConfig = read_settings(CONFIGS[known_kind(options["kind"])], settings, "codec")
    return config


def codec_use(options: Mapping[str, Any]) -> CodecUse:
    """Return how the `codec` group says that its codec is used.

    Raises:
        ValueError: naming `codec.<field>`.
    """
    return read_settings(CodecUse, {name: options[name] for name in USE if name in options}, "codec")


def codec_differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """One clause for each setting in which two codecs differ; one that is None might as well be absent.

    Args:
        theirs: kind and settings of a codec that is there, by names within the `codec` group.
        ours: of the one that is wanted here.
    """
    return [
        f"codec.{name} is {theirs.get(name, ABSENT)} there and {ours.get(name, ABSENT)} here"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]


def known_kind(kind: object) -> str:
    """The kind of a codec; raises a ValueError that lists the kinds when it is none."""
    if not isinstance(kind, str) or kind not in CONFIGS:
        raise ValueError(f"codec.kind={kind} is unknown; {near_matches(str(kind), list(CONFIGS))}")
    return str(kind)
