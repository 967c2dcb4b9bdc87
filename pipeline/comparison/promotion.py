"""The registry's champion moves to a model that the paired test calls better, and for nothing else."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.comparison.finding.found import Found
from pipeline.comparison.result import Comparison
from pipeline.comparison.wording import lead, reason
from pipeline.configuration.composed import REPOSITORY
from pipeline.configuration.settings import read_settings
from pipeline.statistics.paired import Verdict
from pipeline.tracking.config import TrackingConfig

log = logging.getLogger(__name__)


def promote(comparison: Comparison, tracking: Mapping[str, Any]) -> bool:
    """Make the model that was compared with the baseline the champion, if it is better; whether it is now.

    Raises:
        ValueError: when runs are not recorded, an export is not at hand, or the baseline is not the champion.
        pipeline.tracking.store.StoreUnavailableError: when the store cannot be used.
    """
    (contest,) = comparison.contests
    config = _read(tracking)
    if contest.verdict is not Verdict.BETTER:
        log.info("The alias champion stays where it is: %s", lead(contest, comparison.baseline.label))
        return False
    # MLflow takes seconds to import.
    from pipeline.tracking import registry

    evidence = {f"compared.{outcome.measure.name}": reason(outcome) for outcome in contest.deciding}
    export = _export(contest.model.export, contest.model.label)
    registry.promote(config, REPOSITORY, export, comparison.baseline.export, contest.verdict, evidence)
    return True


def crown_first(found: Found, tracking: Mapping[str, Any]) -> bool:
    """Make a model the champion where there is none to hold it against; False where there is one.

    Raises:
        ValueError: when runs are not recorded, or the export is not at hand or of no run.
        pipeline.tracking.store.StoreUnavailableError: when the store cannot be used.
    """
    config = _read(tracking)
    from pipeline.tracking import registry

    if registry.find_champion(config, REPOSITORY) is not None:
        return False
    registry.promote(config, REPOSITORY, _export(found.export, found.label), None, registry.FIRST, {})
    return True


def _read(tracking: Mapping[str, Any]) -> TrackingConfig:
    """Where the registry is.

    Raises:
        ValueError: when there is none.
    """
    config = read_settings(TrackingConfig, tracking, "tracking")
    if config.kind == "none":
        raise ValueError("promote=true moves an alias of MLflow's registry, and tracking=none keeps none.")
    return config


def _export(export: Path | None, label: str) -> Path:
    """The files that a champion's version keeps.

    Raises:
        ValueError: when they are not here.
    """
    if export is None:
        raise ValueError(
            f"The export of {label} is not at hand to be registered; name the folder of the export instead."
        )
    return export
