"""What `stream` adds to the configuration. Light: needs no torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.configuration.settings import read_settings
from pipeline.plumbing.device import check_device

STANDARD_OUTPUT, SPEAKER = "-", "speaker"
# Kinds of file that are written while speech is made up, by how their names end.
FILES = (".wav", ".flac", ".ogg", ".mp3")
SAMPLING = tuple(field.name for field in fields(SamplingConfig))


@dataclass(frozen=True)
class StreamConfig:
    """What is spoken, by whom, and where to.

    Attributes:
        export: the folder of an export.
        prompt: the recording that is continued; None: speech begins from nothing.
        to: a file, `-` for standard output, or `speaker`.
        seconds: of speech at most, the prompt not counted.
        echo: whether the prompt is heard first.
        speculative: draft with the multi-token-prediction modules.
        device: one of `pipeline.plumbing.device.DEVICES`.
        sampling: how tokens are drawn.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {"seconds": 36_000}

    export: str
    prompt: str | None
    to: str
    seconds: float
    echo: bool
    speculative: bool
    device: str
    sampling: SamplingConfig

    def __post_init__(self) -> None:
        check_path("export", self.export, "the folder of an export")
        if self.prompt is not None:
            check_path("prompt", self.prompt, "an audio file")
        check_path("to", self.to, "a file, - or speaker")
        if self.to not in (STANDARD_OUTPUT, SPEAKER) and Path(self.to).suffix.lower() not in FILES:
            raise ValueError(f"to is '{self.to}'; it takes a file that ends in {', '.join(FILES)}, or -, or speaker.")
        if self.seconds <= 0:
            raise ValueError(f"seconds is {self.seconds}; it must be positive.")
        check_device("device", self.device)


STREAM_KEYS = (*(field.name for field in fields(StreamConfig) if field.name != "sampling"), *SAMPLING)


def read_stream(values: Mapping[str, Any]) -> StreamConfig:
    """The settings of `stream` in a composed configuration.

    Raises:
        ValueError: naming the key that cannot be, and the remedy.
    """
    return read_settings(StreamConfig, with_sampling(values, STREAM_KEYS), "")


def with_sampling(values: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Those of `values` that have one of these keys, the settings of sampling gathered into one of their own."""
    chosen = {key: values[key] for key in keys if key in values and key not in SAMPLING}
    sampling = {key: values[key] for key in SAMPLING if key in values}
    return {**chosen, "sampling": read_settings(SamplingConfig, sampling, "")}


def check_path(key: str, path: str, expected: str) -> None:
    """Refuse what is no path at all.

    Raises:
        ValueError: naming the key, and what it takes.
    """
    if not path.strip() or not path.isprintable() or len(path) > 4000:
        raise ValueError(f"{key} is {path[:60]!r}; it takes {expected}.")
