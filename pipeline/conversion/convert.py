"""The stage `convert-checkpoint`: a checkpoint of any layout to any other, judged before it takes its place."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.checkpoints.conversion import convert
from pipeline.checkpoints.registry import open_checkpoint
from pipeline.conversion.check import FAIL
from pipeline.conversion.configuration import read_conversion
from pipeline.conversion.options import composed_architecture, conversion_options, open_options
from pipeline.conversion.progress import progress_bar
from pipeline.conversion.report import conversion_report, headline_metrics
from pipeline.conversion.staging import CODEC, Staging, copy_codec
from pipeline.conversion.verdict import Surroundings, Verdict, examine
from pipeline.plumbing.files import sweep
from pipeline.plumbing.stage_runs import child_run

log = logging.getLogger(__name__)

# The layout whose exports speak by themselves: the codec comes along.
SPEAKING_LAYOUT = "huggingface"


def convert_checkpoint(values: Mapping[str, Any], outputs: Path) -> None:
    """Write `target` from `source`: by default `export` of the outputs from the best checkpoint of training.

    Args:
        values: the composed configuration.
        outputs: where the stages write.
    """
    settings = read_conversion(values)
    sweep(outputs)
    prepared, layout, seed = Path(values["paths"]["prepared"]), values["layout"], values["seed"]
    path = Path(values["source"] or outputs / "train" / "checkpoint.ckpt")
    architecture = composed_architecture(values, prepared)
    source = open_checkpoint(path, settings.source_layout, open_options(settings, architecture, seed))
    staging = Staging(Path(values["target"] or outputs / "export"))
    with progress_bar("converting") as progress:
        conversion = convert(source, staging.path, layout, conversion_options(settings), progress)

    surroundings = Surroundings(prepared, prepared / CODEC, values["model"]["vocab_size"], seed)
    notes = []
    if layout == SPEAKING_LAYOUT:
        notes += copy_codec(path, staging.path, surroundings, source.config.vocab_size)
    verdict = examine(source, staging.path, layout, settings, surroundings)
    report = conversion_report(source, conversion, verdict, settings, notes)
    is_accepted = verdict.status != FAIL or settings.accept
    written = staging.accept(report) if is_accepted else staging.reject(report)
    with child_run(values, outputs, "convert-checkpoint") as run:
        run.log_parameters({"conversion": values["conversion"], "layout": layout, "source": str(path)})
        run.log_metrics(headline_metrics(verdict, conversion))
        run.set_tags({"conversion.verdict": verdict.status})
        run.log_artifact(written)
        announce(verdict, notes, staging, written, is_accepted)


def announce(verdict: Verdict, notes: list[str], staging: Staging, report: Path, is_accepted: bool) -> None:
    """Say what the verdict is, and where everything lies.

    Raises:
        ValueError: when the target was not accepted.
    """
    for note in notes:
        log.warning("%s", note)
    if not is_accepted:
        raise ValueError(
            f"The verdict is fail: {verdict.sentence}. What was written lies in {staging.rejected}, and {report} tells "
            f"of every check; conversion.accept=true gives it the place {staging.target} all the same."
        )
    log.info("%s: %s, %s. Every check is in %s.", staging.target, verdict.status, verdict.sentence, report)
