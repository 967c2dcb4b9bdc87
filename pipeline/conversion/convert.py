"""The stage `convert-checkpoint`: a checkpoint of any layout to any other, judged before it takes its place."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.checkpoints.conversion import convert
from pipeline.checkpoints.registry import open_checkpoint
from pipeline.checkpoints.stored_tensor import CheckpointSource
from pipeline.configuration.command_line import repeating_command
from pipeline.configuration.composed import REPOSITORY, Folders, cache_folder
from pipeline.configuration.settings import read_settings
from pipeline.conversion.check import FAIL
from pipeline.conversion.configuration import read_conversion
from pipeline.conversion.options import composed_architecture, conversion_options, open_options
from pipeline.conversion.progress import progress_bar
from pipeline.conversion.report import conversion_report, headline_metrics
from pipeline.conversion.staging import CODEC, Staging, copy_codec
from pipeline.conversion.verdict import Surroundings, Verdict, examine
from pipeline.mlflow_model.description import describe_export, is_speaking
from pipeline.plumbing.files import naming, sweep
from pipeline.plumbing.lock import alone
from pipeline.provenance.digests import digest_of
from pipeline.provenance.exports import export_digest
from pipeline.provenance.identity import Identity, TrainingIdentity, identify_checkpoint, identity_path, write_identity
from pipeline.provenance.prepared_data import find_prepared
from pipeline.provenance.training import left_checkpoint, prepared_for
from pipeline.tracking.config import NO_MODEL, TrackingConfig, anchored
from pipeline.tracking.model_entry import EXPORT, ModelEntry
from pipeline.tracking.run import TrackedRun
from pipeline.tracking.stage_runs import child_run

log = logging.getLogger(__name__)

# The layout whose exports speak by themselves: the codec comes along.
SPEAKING_LAYOUT = "huggingface"


def convert_checkpoint(values: Mapping[str, Any], folders: Folders) -> None:
    """Write `target` from `source`: by default `export` of the outputs from the best checkpoint of training.

    Args:
        values: the composed configuration.
        folders: where the training's checkpoint lies, and where to write.
    """
    settings = read_conversion(values)
    sweep(folders.outputs)
    named = values["source"]
    path = Path(named) if named else left_checkpoint(folders.training, repeating_command())
    architecture = composed_architecture(values, Path(values["paths"]["prepared"]))
    source = open_checkpoint(path, settings.source_layout, open_options(settings, architecture, values["seed"]))
    target = Path(values["target"] or folders.outputs / "export")
    with alone(target, "A conversion", "target=…"):
        write_target(path, source, Staging(target), values, folders)


def write_target(
    path: Path, source: CheckpointSource, staging: Staging, values: Mapping[str, Any], folders: Folders
) -> None:
    """Convert a checkpoint, judge what was written, give it its place if it is accepted, and track all of it.

    Args:
        path: of the checkpoint.
        source: the checkpoint, opened.
        staging: the way to its target.
        values: the composed configuration.
        folders: as of `convert_checkpoint`.

    Raises:
        ValueError: when it was not accepted.
    """
    settings, layout, named = read_conversion(values), values["layout"], values["source"]
    identity = identify_source(path, source.identity, follows_training=not named)
    with naming(staging.target), progress_bar("converting") as progress:
        conversion = convert(source, staging.path, layout, conversion_options(settings), progress)
    if conversion.resumed_files:
        # Not in the report, which is the same however often a conversion was interrupted.
        log.info("%d files were whole already, from a conversion that was interrupted.", conversion.resumed_files)

    recorded = None if named else prepared_for(folders.training / "train")
    surroundings = find_surroundings(values, identity.training, recorded)
    notes = [] if identity.training else [f"{path} does not say which training it is from: a stranger's, or older."]
    if layout == SPEAKING_LAYOUT:
        notes += copy_codec(path, staging.path, surroundings, source.config.vocab_size)
        if is_speaking(staging.path):
            describe_export(staging.path)
    verdict = examine(source, staging.path, layout, settings, surroundings)
    report = conversion_report(source, conversion, verdict, settings, notes)
    is_accepted = verdict.status != FAIL or settings.accept
    write_identity(identity_path(staging.path), identity)
    written = staging.accept(report) if is_accepted else staging.reject(report)
    with child_run(values, folders, "convert-checkpoint", identity.training) as run:
        run.log_parameters({"conversion": values["conversion"], "layout": layout, "source": str(path)})
        run.log_metrics(headline_metrics(verdict, conversion))
        run.set_tags({"conversion.verdict": verdict.status})
        run.log_artifact(written)
        if is_accepted:
            log_export(run, staging.target, identity.training, values["tracking"])
        announce(verdict, notes, staging, written, is_accepted)


def log_export(run: TrackedRun, export: Path, training: TrainingIdentity | None, tracking: Mapping[str, Any]) -> None:
    """Log an export that speaks as a model of the training, unless none is asked for."""
    keep = read_settings(TrackingConfig, tracking, "tracking").log_model
    if keep != NO_MODEL and is_speaking(export):
        tags = training.tags() if training else {}
        home = anchored(export, REPOSITORY)
        run.log_model(ModelEntry(EXPORT, EXPORT, export_digest(export), export, keep, tags=tags, home=home))


def identify_source(path: Path, inside: Mapping[str, Any] | None, follows_training: bool) -> Identity:
    """Which training a source is from, and whether it is what the training stage has left."""
    return Identity(identify_checkpoint(path, inside), follows_training)


def find_surroundings(
    values: Mapping[str, Any], training: TrainingIdentity | None, recorded: Path | None = None
) -> Surroundings:
    """The data and the codec that a source can be heard and scored with: its training's, as far as that is known.

    Args:
        values: the composed configuration.
        training: that the source is from; None: nobody knows.
        recorded: where the training's data lay, if it says so.
    """
    usual, cache, foreign = Path(values["paths"]["prepared"]), cache_folder(values["paths"]), ""
    if training and (found := find_prepared(training.data, training.settings, usual, cache, recorded)):
        usual = found
    elif training and usual.is_dir() and digest_of(usual / CODEC) != training.codec:
        foreign = f"{usual} speaks through another codec than the model was trained on"
    return Surroundings(
        usual,
        usual / CODEC,
        values["model"]["vocab_size"],
        values["seed"],
        training.context if training else None,
        foreign,
    )


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
