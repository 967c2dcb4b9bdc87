"""From names of models to a comparison of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.comparison.configuration import ComparisonConfig
from pipeline.comparison.contest import compare_evaluations
from pipeline.comparison.evaluating import evaluate_all
from pipeline.comparison.finding.found import Places
from pipeline.comparison.finding.names import find_all
from pipeline.comparison.result import Comparison
from pipeline.configuration.composed import REPOSITORY
from pipeline.configuration.settings import read_settings
from pipeline.tracking.config import TrackingConfig

FOLDER = "compared"


def compare_names(names: Sequence[str], values: Mapping[str, Any]) -> Comparison:
    """Find the models, evaluate those that have to be, and hold all others against the first.

    Args:
        names: of two models or more.
        values: the composed configuration.

    Raises:
        FileNotFoundError, ValueError: naming what cannot be found or compared, and the remedy.
    """
    cache = Path(values["paths"]["cache"]) / FOLDER
    tracking = read_settings(TrackingConfig, values["tracking"], "tracking")
    found = find_all(names, Places(Path(values["paths"]["outputs"]), cache, REPOSITORY, tracking))
    config = read_settings(ComparisonConfig, values["comparison"], "comparison")
    return compare_evaluations(evaluate_all(found, values, cache), config)
