"""From names of models to a comparison of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.comparison.configuration import ComparisonConfig
from pipeline.comparison.contest import compare_evaluations
from pipeline.comparison.evaluating import evaluate_all
from pipeline.comparison.finding.found import Found, Places
from pipeline.comparison.finding.names import find_all
from pipeline.comparison.result import Comparison
from pipeline.configuration.composed import REPOSITORY, cache_folder
from pipeline.configuration.settings import read_settings
from pipeline.tracking.config import TrackingConfig

FOLDER = "compared"


def find_models(names: Sequence[str], values: Mapping[str, Any]) -> list[Found]:
    """The models that names lead to.

    Args:
        names: as they were typed.
        values: the composed configuration.

    Raises:
        FileNotFoundError, ValueError: naming what cannot be found, and the remedy.
    """
    tracking = read_settings(TrackingConfig, values["tracking"], "tracking")
    return find_all(names, Places(Path(values["paths"]["outputs"]), _cache(values), REPOSITORY, tracking))


def compare_found(found: Sequence[Found], values: Mapping[str, Any]) -> Comparison:
    """Evaluate those models that have to be, and hold all others against the first.

    Args:
        found: two models or more.
        values: the composed configuration.

    Raises:
        FileNotFoundError, ValueError: naming what cannot be compared, and the remedy.
    """
    config = read_settings(ComparisonConfig, values["comparison"], "comparison")
    return compare_evaluations(evaluate_all(found, values, _cache(values)), config)


def _cache(values: Mapping[str, Any]) -> Path:
    """Where what is brought here, or made here, is kept."""
    return cache_folder(values["paths"]) / FOLDER
