"""The whole composed configuration, checked before anything is imported, opened or written for it. Needs no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lightning_modules.configuration import OptimizerConfig, TrainerConfig
from lightning_modules.precision.kinds import PRECISIONS
from lightning_modules.schedule import ScheduleConfig
from pipeline.audio.codecs.configuration import codec_settings, codec_use
from pipeline.comparison.configuration import COMPARE_KEYS, ComparisonConfig, read_compare
from pipeline.configuration.model import check_model
from pipeline.configuration.settings import check_seed, near_matches, read_settings
from pipeline.configuration.strategy import read_strategy
from pipeline.conversion.configuration import read_conversion
from pipeline.evaluation.configuration import read_evaluation
from pipeline.planning.settings import GpuConfig
from pipeline.plumbing.locations import scheme_of
from pipeline.plumbing.redaction import redacted, uri_user
from pipeline.preparation.configuration import read_data, read_preparation
from pipeline.serving.configuration import SERVE_KEYS, read_serve
from pipeline.streaming.configuration import STREAM_KEYS, read_stream
from pipeline.sweeping.configuration import SWEEP_REPORT_KEYS, SweepConfig, read_sweep_report
from pipeline.tracking.config import TrackingConfig
from pipeline.training.configuration import FeedConfig

# A path that the system takes is shorter.
LONGEST_PATH = 4000
MOST_MACHINES = 10**6
PRINTED = ("table", "json")
# The layout that strategy describes, or the best.
PLANNED = ("asked", "best")


@dataclass(frozen=True)
class PathsConfig:
    """Where the stages read and write, how much of what lies elsewhere is kept, and what DVC watches."""

    LARGEST: ClassVar[Mapping[str, float]] = {"cache_gb": 1e9}

    prepared: str
    cache: str
    outputs: str
    cache_gb: float
    corpus: str
    codec: str
    mixture: str

    def __post_init__(self) -> None:
        for name in ("prepared", "cache", "outputs", "corpus", "codec", "mixture"):
            path = getattr(self, name)
            if not path.strip():
                raise ValueError(f"paths.{name} is empty; give a folder.")
            if not path.isprintable() or len(path) > LONGEST_PATH:
                raise ValueError(f"paths.{name} is {path[:60]!r}; give the path of a folder.")
            if uri_user(path):
                raise ValueError(f"paths.{name} is {redacted(path)} with a password; credentials belong elsewhere.")
        if self.cache_gb <= 0:
            raise ValueError(f"paths.cache_gb is {self.cache_gb}; set it above 0.")
        refuse_surroundings("paths.prepared", self.prepared)
        for name in ("cache", "outputs"):
            if scheme_of(getattr(self, name)):
                raise ValueError(f"paths.{name} is {redacted(getattr(self, name))}; it takes a folder on a disk.")
            if Path(getattr(self, name)).resolve().is_relative_to(Path(self.prepared).resolve()):
                raise ValueError(
                    f"paths.{name} lies in paths.prepared, which is replaced as a whole; move it out of there."
                )


@dataclass(frozen=True)
class ReportConfig:
    """What the page is called, what it holds the model against, and how many utterances of each kind it holds."""

    LARGEST: ClassVar[Mapping[str, float]] = {"n_examples": 1000}

    title: str
    baseline: str | None
    n_examples: int

    def __post_init__(self) -> None:
        if self.baseline is not None and not self.baseline.strip():
            raise ValueError("report.baseline is empty; name a model as for pipeline.compare, or null.")
        if not self.title.strip():
            raise ValueError("report.title is empty; give the page a title.")
        if self.n_examples < 0:
            raise ValueError(f"report.n_examples is {self.n_examples}; set it to 0 or more.")


def refuse_surroundings(key: str, folder: str) -> None:
    """Refuse a folder that a stage replaces as a whole where it holds the working directory.

    Raises:
        ValueError: naming the key.
    """
    if Path.cwd().is_relative_to(Path(folder).resolve()):
        raise ValueError(f"{key} is {folder!r}, which holds the working directory; name a folder of its own.")


def check_experiment(values: Mapping[str, Any], config_name: str = "config") -> None:
    """Check every group and value of a composed configuration, whichever of them a command goes by.

    Args:
        values: the configuration.
        config_name: the file of conf/ that the command composes, which may have keys of its own.

    Raises:
        ValueError: a key is unknown or missing, or a value cannot be; the message names it, and the remedy.
    """
    checks = SECTIONS | OWN_KEYS.get(config_name, {})
    known = list(checks)
    for key in values:
        if key not in known:
            raise ValueError(f"`{key}` is neither a group nor a setting; {near_matches(key, known)}")
    for key, check in checks.items():
        if key in GROUPS and key in values and not isinstance(values[key], Mapping):
            raise ValueError(f"{key} is {values[key]!r}; it takes one of the files under conf/{key}.")
        if key in values:
            check(values)
        else:
            raise ValueError(f"{key} is missing from the configuration; take conf/ with `python -m pipeline.compose`.")


def _settings(cls: type, key: str) -> Callable[[Mapping[str, Any]], None]:
    def check(values: Mapping[str, Any]) -> None:
        read_settings(cls, values[key], key)

    return check


def _check_precision(values: Mapping[str, Any]) -> None:
    precision = dict(values["precision"])
    if (kind := precision.pop("kind", None)) not in PRECISIONS:
        raise ValueError(f"precision.kind is {kind!r}; {near_matches(kind, PRECISIONS)}")
    if precision:
        raise ValueError(f"precision.{min(precision)} is not a setting; precision has `kind` alone.")


def _check_seed(values: Mapping[str, Any]) -> None:
    check_seed("seed", values["seed"])


def _path_or_null(key: str) -> Callable[[Mapping[str, Any]], None]:
    def check(values: Mapping[str, Any]) -> None:
        if values[key] is not None and not (isinstance(values[key], str) and values[key]):
            raise ValueError(f"{key} is {values[key]!r}; it takes the path of a checkpoint, or null.")
        if values[key] is not None and (not values[key].isprintable() or len(values[key]) > LONGEST_PATH):
            raise ValueError(f"{key} is {values[key][:60]!r}; it takes the path of a checkpoint, or null.")
        if key == "target" and values[key] is not None:
            refuse_surroundings(key, values[key])

    return check


def _count(key: str) -> Callable[[Mapping[str, Any]], None]:
    def check(values: Mapping[str, Any]) -> None:
        if not isinstance(values[key], int) or isinstance(values[key], bool) or not 1 <= values[key] <= MOST_MACHINES:
            raise ValueError(f"{key} is {values[key]!r}; it takes a whole number from 1 to {MOST_MACHINES:,}.")

    return check


def _one_of(key: str, choices: tuple[str, ...]) -> Callable[[Mapping[str, Any]], None]:
    def check(values: Mapping[str, Any]) -> None:
        if values[key] not in choices:
            raise ValueError(f"{key} is '{values[key]}'; choose {' or '.join(choices)}.")

    return check


# Every key of a stage's configuration.
SECTIONS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "data": lambda values: read_data(values["data"]),
    "codec": lambda values: (codec_settings(values["codec"]), codec_use(values["codec"])),
    "preparation": lambda values: read_preparation(values["preparation"]),
    "model": check_model,
    "optimizer": _settings(OptimizerConfig, "optimizer"),
    "schedule": _settings(ScheduleConfig, "schedule"),
    "trainer": _settings(TrainerConfig, "trainer"),
    "feed": _settings(FeedConfig, "feed"),
    "precision": _check_precision,
    "strategy": lambda values: read_strategy(values["strategy"]),
    "tracking": _settings(TrackingConfig, "tracking"),
    "conversion": read_conversion,
    "evaluate": lambda values: read_evaluation(values["evaluate"]),
    "report": _settings(ReportConfig, "report"),
    "comparison": _settings(ComparisonConfig, "comparison"),
    "sweep": _settings(SweepConfig, "sweep"),
    "seed": _check_seed,
    "paths": _settings(PathsConfig, "paths"),
    "source": _path_or_null("source"),
    "target": _path_or_null("target"),
    "layout": read_conversion,
}
# Those of them that are chosen by a file's name.
GROUPS = (
    "data", "codec", "preparation", "model", "optimizer", "schedule", "trainer", "feed", "precision", "strategy",
    "tracking", "conversion", "evaluate", "report", "comparison", "sweep", "gpu",
)  # fmt: skip
# What some commands add.
OWN_KEYS: dict[str, dict[str, Callable[[Mapping[str, Any]], Any]]] = {
    "plan": {
        "gpu": _settings(GpuConfig, "gpu"),
        "nodes": _count("nodes"),
        "gpus_per_node": _count("gpus_per_node"),
        "plan": _one_of("plan", PLANNED),
        "output": _one_of("output", PRINTED),
    },
    "compliance": {"output": _one_of("output", PRINTED)},
    "ui": {"port": _count("port")},
    "stream": dict.fromkeys(STREAM_KEYS, read_stream),
    "serve": dict.fromkeys(SERVE_KEYS, read_serve),
    "compare": dict.fromkeys(COMPARE_KEYS, read_compare),
    "sweep_report": dict.fromkeys(SWEEP_REPORT_KEYS, read_sweep_report),
}
