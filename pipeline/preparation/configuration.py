"""The `data` group of the configuration. Light: needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.audio.configuration import ScreeningConfig, SplitConfig, UtteranceConfig
from pipeline.audio.corpora.configuration import corpus_settings
from pipeline.configuration.settings import check_seed, read_settings

PROCESSING = ("shard_utterances", "reference_utterances", "workers")


@dataclass(frozen=True)
class ProcessingConfig:
    """How the work is portioned."""

    LARGEST: ClassVar[Mapping[str, float]] = {
        "shard_utterances": 10**6, "reference_utterances": 10**6, "workers": 1024
    }  # fmt: skip

    shard_utterances: int
    reference_utterances: int
    workers: int | None

    def __post_init__(self) -> None:
        for name in PROCESSING:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"data.{name} is {value}; it must be at least 1.")


@dataclass(frozen=True)
class DataConfig:
    """A corpus, and what becomes of it.

    Attributes:
        kind: of the corpus.
        seed: of every random choice that data depend on.
        options: the kind's own.
        split: who goes where.
        utterances: how long documents are.
        screening: what cannot be used.
        processing: how the work is portioned.
    """

    kind: str
    seed: int
    options: Mapping[str, Any]
    split: SplitConfig
    utterances: UtteranceConfig
    screening: ScreeningConfig
    processing: ProcessingConfig


def read_data(data: Mapping[str, Any]) -> DataConfig:
    """The `data` group, read and checked; nothing is opened.

    Raises:
        ValueError: naming the key that cannot be, and the remedy.
    """
    if "kind" not in data:
        raise ValueError("data.kind is missing; choose one of the files under conf/data, as data=folder.")
    options = dict(data)
    kind, seed = options.pop("kind"), check_seed("data.seed", options.pop("seed", None))
    split = read_settings(SplitConfig, options.pop("split", {}), "data.split")
    utterances = read_settings(UtteranceConfig, options.pop("utterances", {}), "data.utterances")
    screening = read_settings(ScreeningConfig, options.pop("screening", {}), "data.screening")
    processing = read_settings(
        ProcessingConfig, {name: options.pop(name) for name in PROCESSING if name in options}, "data"
    )
    corpus_settings(kind, options)
    return DataConfig(kind, seed, options, split, utterances, screening, processing)
