"""The stage `report`: everything to one page."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.architecture.examination import examine
from pipeline.comparison.comparing import compare_found, find_models
from pipeline.configuration.command_line import repeating_command
from pipeline.configuration.composed import REPOSITORY, Folders, cache_folder
from pipeline.plumbing.files import sweep
from pipeline.plumbing.redaction import redacted_values
from pipeline.provenance.identity import IDENTITY, Identity, read_identity
from pipeline.provenance.prepared_data import find_prepared
from pipeline.provenance.training import prepared_for, recorded_configuration, run_of
from pipeline.reporting.agreement import disagreements
from pipeline.reporting.data import ReportPaths, collect
from pipeline.reporting.page import write_report
from pipeline.reporting.sections.headline import report_verdict
from pipeline.tracking.config import anchored
from pipeline.tracking.lineage import environment, source_tags
from pipeline.tracking.notes import VERDICT
from pipeline.tracking.stage_runs import child_run

log = logging.getLogger(__name__)

DVC_LOCK = "dvc.lock"


def report(values: Mapping[str, Any], folders: Folders) -> None:
    """Write `report` of the outputs from what the other stages wrote.

    Args:
        values: the composed configuration.
        folders: where the results of the other stages lie, and where to write.
    """
    sweep(folders.outputs)
    evaluation = read_identity(folders.training / "evaluate" / IDENTITY)
    paths = ReportPaths.under(find_data(values["paths"], evaluation, folders.training), folders.training)
    foreign = disagreements(paths)
    for sentence in foreign.values():
        log.warning("%s", sentence)
    training = evaluation.training if evaluation else None
    shown = dict(values) | recorded_configuration(paths.train) | recorded_configuration(paths.evaluate)
    content = collect(
        paths,
        redacted_values(shown),
        title=values["report"]["title"],
        n_examples=values["report"]["n_examples"],
        lineage=redacted_values(source_tags(REPOSITORY)) | dvc_hashes(Path(DVC_LOCK)),
        environment=environment(),
        compliance=examine(shown, paths.prepared),
        checkpoint=training.checkpoint if training else "",
        run=run_of(paths.train, training),
        foreign=foreign,
    )
    if (baseline := values["report"]["baseline"]) is not None:
        content = replace(
            content, against=compare_found(find_models((baseline, str(folders.training)), values), values)
        )
    page = write_report(content, folders.outputs / "report")
    verdict = report_verdict(content)
    log.info("%s: %s %s", verdict.stamp, verdict.judgements[0].sentence, where_to_look(page.resolve()))
    with child_run(values, folders, "report", training) as run:
        run.log_artifacts(page.parent, "report")
        sentences = " ".join(judgement.sentence for judgement in verdict.judgements)
        # First, for MLflow folds what follows.
        link = f"[The report, with players]({run.link(f'report/{page.name}')})"
        run.describe(VERDICT, f"**{verdict.stamp}.** {link}. {sentences}")


def where_to_look(page: Path) -> str:
    """How to see the page. That of a queued experiment vanishes with the copy of the repository that it was made in."""
    home = anchored(page, REPOSITORY)
    return f"Open {home.as_uri()} in a browser{'' if home == page else f', after {repeating_command()}'}."


def find_data(paths: Mapping[str, str], evaluation: Identity | None, outputs: Path) -> Path:
    """The prepared data that were evaluated on, where they are; else the usual ones."""
    usual, cache = Path(paths["prepared"]), cache_folder(paths)
    if evaluation is None or evaluation.training is None:
        return usual
    recorded = prepared_for(outputs / "train")
    return find_prepared(evaluation.data, evaluation.training.settings, usual, cache, recorded) or usual


def dvc_hashes(lock: Path) -> dict[str, str]:
    """The hash of every output that DVC has recorded, {dvc.path: hash}, but the page's own, which is yet to be written.

    Empty where DVC has not run.
    """
    if not lock.exists():
        return {}
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    outputs = [out for name, stage in stages.items() if name != "report" for out in stage.get("outs", [])]
    return {f"dvc.{out['path']}": out.get("md5", "") for out in outputs}
