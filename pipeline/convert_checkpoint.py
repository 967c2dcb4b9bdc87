"""Stage 3: a checkpoint of any layout to any other, judged before it takes its place.

python -m pipeline.convert_checkpoint
python -m pipeline.convert_checkpoint source=old.pt target=export [layout=deepseek conversion.dtype=fp8 …]
"""

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig

from pipeline.checkpoints.conversion import convert
from pipeline.checkpoints.registry import open_checkpoint
from pipeline.configuration.composed import outputs_folder, plain
from pipeline.conversion.check import FAIL
from pipeline.conversion.progress import progress_bar
from pipeline.conversion.report import conversion_report, headline_metrics
from pipeline.conversion.settings import composed_architecture, read_conversion
from pipeline.conversion.staging import CODEC, Staging, copy_codec
from pipeline.conversion.verdict import Surroundings, Verdict, examine
from pipeline.plumbing.stage_runs import child_run

log = logging.getLogger(__name__)

# The layout whose exports speak by themselves: the codec comes along.
SPEAKING_LAYOUT = "huggingface"


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    """Write `target` from `source`: by default outputs/export from the best checkpoint of training."""
    values = plain(config)
    settings = read_conversion(values)
    prepared, outputs, layout = Path(config.paths.prepared), outputs_folder(config), str(config.layout)
    path = Path(values["source"] or outputs / "train" / "checkpoint.ckpt")
    architecture = composed_architecture(values, prepared)
    source = open_checkpoint(path, settings.source_layout, settings.opened(architecture, config.seed))
    staging = Staging(Path(values["target"] or outputs / "export"))
    with progress_bar("converting") as progress:
        conversion = convert(source, staging.path, layout, settings.written(), progress)

    surroundings = Surroundings(prepared, prepared / CODEC, values["model"]["vocab_size"], config.seed)
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


if __name__ == "__main__":
    main()
