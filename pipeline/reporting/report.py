"""The stage `report`: everything to one page."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.architecture.examination import examine
from pipeline.configuration.composed import REPOSITORY
from pipeline.plumbing.files import sweep
from pipeline.plumbing.redaction import redacted_values
from pipeline.plumbing.stage_runs import child_run
from pipeline.reporting.data import ReportPaths, collect
from pipeline.reporting.page import write_report
from pipeline.reporting.sections.headline import report_verdict
from pipeline.tracking.lineage import environment, source_tags

log = logging.getLogger(__name__)

DVC_LOCK = "dvc.lock"


def report(values: Mapping[str, Any], outputs: Path) -> None:
    """Write `report` of the outputs from what the other stages wrote.

    Args:
        values: the composed configuration.
        outputs: where the stages write.
    """
    prepared = Path(values["paths"]["prepared"])
    sweep(outputs)
    content = collect(
        ReportPaths.under(prepared, outputs),
        redacted_values(values),
        title=values["report"]["title"],
        n_examples=values["report"]["n_examples"],
        lineage=redacted_values(source_tags(REPOSITORY)) | dvc_hashes(Path(DVC_LOCK)),
        environment=environment(),
        compliance=examine(values, prepared),
    )
    page = write_report(content, outputs / "report")
    verdict = report_verdict(content)
    log.info("%s: %s Open %s in a browser.", verdict.stamp, verdict.judgements[0].sentence, page.resolve().as_uri())
    with child_run(values, outputs, "report") as run:
        run.log_artifacts(page.parent, "report")


def dvc_hashes(lock: Path) -> dict[str, str]:
    """The hash of every output that DVC has recorded, {dvc.path: hash}, but the page's own, which is yet to be written.

    Empty where DVC has not run.
    """
    if not lock.exists():
        return {}
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    outputs = [out for name, stage in stages.items() if name != "report" for out in stage.get("outs", [])]
    return {f"dvc.{out['path']}": out.get("md5", "") for out in outputs}
