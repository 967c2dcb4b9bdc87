"""A whole composed configuration, checked before anything is opened. Light: needs no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_modules.configuration import OptimizerConfig, TrainerConfig
from lightning_modules.precision.kinds import PRECISIONS
from lightning_modules.schedule import ScheduleConfig
from pipeline.audio.codecs.configuration import codec_settings
from pipeline.configuration.model import check_model
from pipeline.configuration.settings import near_matches, read_settings
from pipeline.configuration.strategy import read_strategy
from pipeline.conversion.configuration import read_conversion
from pipeline.evaluation.configuration import read_evaluation
from pipeline.preparation.configuration import read_data
from pipeline.reporting.configuration import ReportConfig
from pipeline.tracking.config import TrackingConfig

# What numpy's, torch's and Lightning's generators all take.
LARGEST_SEED = 2**32 - 1
PATHS = ("prepared", "cache", "outputs")
LONGEST_PATH = 4000
# A stage puts its new folder in the place of these.
REPLACED = {"paths.prepared", "target"}


def check_configuration(values: Mapping[str, Any]) -> None:
    """Read every group of a composed configuration, and open nothing.

    Raises:
        ValueError: naming the first key that cannot be, and what it may be.
    """
    check_seed(values["seed"])
    check_paths(values)
    read_data(_group(values, "data"))
    codec_settings(_group(values, "codec"))
    _group(_group(values, "model"), "objective", "model.")
    check_model(values)
    read_settings(OptimizerConfig, _group(values, "optimizer"), "optimizer")
    read_settings(ScheduleConfig, _group(values, "schedule"), "schedule")
    read_settings(TrainerConfig, _group(values, "trainer"), "trainer")
    check_precision(_group(values, "precision"))
    read_strategy(_group(values, "strategy"))
    read_settings(TrackingConfig, _group(values, "tracking"), "tracking")
    _group(values, "conversion")
    read_conversion(values)
    read_evaluation(_group(values, "evaluate"))
    read_settings(ReportConfig, _group(values, "report"), "report")


def check_seed(seed: object) -> None:
    """Raise a ValueError unless every generator of random numbers takes the seed."""
    if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed is {seed!r}; it takes an integer from 0 to {LARGEST_SEED:,}.")


def check_precision(precision: Mapping[str, Any]) -> None:
    """Raise a ValueError unless the group `precision` names a kind that there is, and nothing else."""
    kind = precision.get("kind")
    if kind not in PRECISIONS:
        raise ValueError(f"precision.kind is {kind!r}; {near_matches(kind, PRECISIONS)}")
    if others := sorted(precision.keys() - {"kind"}):
        raise ValueError(f"precision.{others[0]} is not a setting; {near_matches(others[0], ['kind'])}")


def check_paths(values: Mapping[str, Any]) -> None:
    """Refuse folders that a stage would overwrite together with what is not its own.

    Raises:
        ValueError: a path is no path, or names a folder that holds the working directory or another of the folders.
    """
    paths = _group(values, "paths")
    folders = {f"paths.{name}": paths.get(name) for name in PATHS}
    folders |= {name: values[name] for name in ("source", "target") if values.get(name) is not None}
    for key, path in folders.items():
        if not isinstance(path, str) or not path.strip() or "\0" in path or len(path) > LONGEST_PATH:
            raise ValueError(f"{key} is {str(path)[:60]!r}; give the path of a folder.")
    resolved = {key: Path(str(path)).resolve() for key, path in folders.items()}
    for key in REPLACED & resolved.keys():
        if Path.cwd().is_relative_to(resolved[key]):
            raise ValueError(f"{key} is {folders[key]!r}, which holds the working directory; name a folder of its own.")
    for key in ("paths.cache", "paths.outputs"):
        if resolved[key].is_relative_to(resolved["paths.prepared"]):
            raise ValueError(f"{key} lies in paths.prepared, which is replaced as a whole; move it out of there.")


def _group(values: Mapping[str, Any], name: str, prefix: str = "") -> Mapping[str, Any]:
    """A group of settings; a ValueError where there is none of this name, or a plain value in its place."""
    group = values.get(name)
    if not isinstance(group, Mapping):
        raise ValueError(f"{prefix}{name} is {group!r}; it takes a group of settings, as the files under conf/ show.")
    return group
