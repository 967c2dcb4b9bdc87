"""Stage 5: everything to one page.

python -m pipeline.report
"""

import logging
from pathlib import Path

import hydra
import yaml
from omegaconf import DictConfig

from pipeline.architecture.examination import examine
from pipeline.configuration.composed import REPOSITORY, outputs_folder, plain
from pipeline.plumbing.stage_runs import child_run
from pipeline.reporting.data import ReportPaths, collect
from pipeline.reporting.page import write_report
from pipeline.tracking.lineage import environment, source_tags

log = logging.getLogger(__name__)

DVC_LOCK = "dvc.lock"


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    """Write outputs/report/index.html from what the other stages wrote."""
    values = plain(config)
    outputs = outputs_folder(config)
    page = outputs / "report" / "index.html"
    report = collect(
        ReportPaths.under(config.paths.prepared, outputs),
        values,
        title=config.report.title,
        n_examples=config.report.n_examples,
        lineage=source_tags(REPOSITORY) | dvc_hashes(Path(DVC_LOCK)),
        environment=environment(),
        compliance=examine(values, Path(config.paths.prepared)),
    )
    write_report(report, page)
    log.info("Open %s in a browser.", page.resolve().as_uri())
    with child_run(values, outputs, "report") as run:
        run.log_artifact(page, "report")


def dvc_hashes(lock: Path) -> dict[str, str]:
    """The hash of every output that DVC has recorded, {dvc.path: hash}; empty where DVC has not run."""
    if not lock.exists():
        return {}
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    return {f"dvc.{out['path']}": out.get("md5", "") for stage in stages.values() for out in stage.get("outs", [])}


if __name__ == "__main__":
    main()
