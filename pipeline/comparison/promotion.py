"""The registry's champion moves to a model that the paired test calls better, and for nothing else."""

import logging
from collections.abc import Mapping
from typing import Any

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
    config = read_settings(TrackingConfig, tracking, "tracking")
    if config.kind == "none":
        raise ValueError("promote=true moves an alias of MLflow's registry, and tracking=none keeps none.")
    if contest.verdict is not Verdict.BETTER:
        log.info("The champion stays: %s", lead(contest, comparison.baseline.label))
        return False
    if contest.model.export is None:
        raise ValueError(
            f"{contest.model.label} is better, but its export is not at hand to be registered; name the folder of the "
            "export instead."
        )
    # MLflow takes seconds to import.
    from pipeline.tracking import registry

    evidence = {f"compared.{outcome.measure.name}": reason(outcome) for outcome in contest.deciding}
    registry.promote(config, REPOSITORY, contest.model.export, comparison.baseline.export, contest.verdict, evidence)
    return True
