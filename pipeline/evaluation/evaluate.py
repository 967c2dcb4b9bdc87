"""The stage `evaluate`: an export to its loss on held-out speech, the speech it makes up, and what both are worth."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from pipeline.configuration.command_line import next_command
from pipeline.configuration.composed import Folders, is_multirun
from pipeline.evaluation.balance import balance
from pipeline.evaluation.calibration import calibration
from pipeline.evaluation.clip import CODEC, GENERATED, REAL
from pipeline.evaluation.configuration import read_evaluation
from pipeline.evaluation.copying import copying
from pipeline.evaluation.diversity import diversity
from pipeline.evaluation.examination import examine
from pipeline.evaluation.findings import Findings, merge
from pipeline.evaluation.judging import judging
from pipeline.evaluation.listening import write_clips
from pipeline.evaluation.long_generation import long_generation
from pipeline.evaluation.loss_breakdown import loss_breakdown
from pipeline.evaluation.losses import losses
from pipeline.evaluation.minimal_pairs import minimal_pairs
from pipeline.evaluation.model import find_data, find_model, identify_model, require_unchanged
from pipeline.evaluation.note import evaluation_note, mirrored
from pipeline.evaluation.prediction_ahead import prediction_ahead
from pipeline.evaluation.ranks import joined_ranks
from pipeline.evaluation.sound import sound
from pipeline.evaluation.subject import Subject
from pipeline.judges.registry import check_presence
from pipeline.plumbing.files import sweep, write_metrics, write_yaml
from pipeline.plumbing.fingerprint import fingerprint
from pipeline.plumbing.lock import alone
from pipeline.plumbing.rank import rank_of_this_process
from pipeline.provenance.exports import export_digest
from pipeline.provenance.identity import (
    IDENTITY,
    Identity,
    TrainingIdentity,
    write_identity,
)
from pipeline.provenance.prepared_data import read_prepared_identity
from pipeline.provenance.training import CONFIGURATION, prepared_for
from pipeline.tracking.notes import SOUND
from pipeline.tracking.stage_runs import child_run

log = logging.getLogger(__name__)

# What is found out about a model. One that needs a package which is not there finds nothing, and says why.
PARTS: tuple[Callable[[Subject], Findings], ...] = (
    losses,
    loss_breakdown,
    prediction_ahead,
    calibration,
    minimal_pairs,
    balance,
    sound,
    diversity,
    long_generation,
    copying,
    judging,
)
# Of the outputs.
FOLDER = "evaluate"
# What experiments are compared by.
HEADLINE = ("eval/loss", "eval/bits_per_second", "audio/fd", "audio/flatness")
LISTENED_TO = (REAL, CODEC, *GENERATED)
# What real speech is known to, by how much of it was held out.
OF_HELD_OUT = ("eval/loss", "audio/fd_reference")
# What an evaluation holds beside the findings of its parts, and the folder of its sounds.
OWN_FILES = ("metrics.json", "audio.json", CONFIGURATION, IDENTITY)


def evaluate(values: Mapping[str, Any], folders: Folders) -> None:
    """Write `evaluate` of the outputs from the `export` of a training, or its checkpoint, and the held-out data.

    Args:
        values: the composed configuration.
        folders: where the export lies, and where to write.
    """
    sweep(folders.outputs)
    settings, folder = read_evaluation(values["evaluate"]), folders.outputs / FOLDER
    model = find_model(folders.training, settings.weights)
    training = identify_model(model, folders.training)
    prepared = find_data(model, training, values["paths"], prepared_for(folders.training / "train"))
    with joined_ranks() as is_first, _alone(folder, is_first):
        findings = write_evaluation(model, training, prepared, values["evaluate"], folder)
        if is_first:
            publish(values, folders, findings, model, training, prepared)


def _alone(folder: Path, is_first: bool) -> AbstractContextManager[None]:
    """Keep other evaluations away from a folder; the first rank, which writes, does so for all."""
    elsewhere = "jobs of a multirun, -m, have one each"
    return alone(folder, "An evaluation", elsewhere) if is_first else nullcontext()


def publish(
    values: Mapping[str, Any],
    folders: Folders,
    findings: Findings,
    model: Path,
    training: TrainingIdentity | None,
    prepared: Path,
) -> None:
    """Say what was found, and log it to the tracked run of the training.

    Args:
        values: the composed configuration.
        folders: where the evaluation was written.
        findings: of all parts.
        model: what was evaluated.
        training: that it is from; None: nobody knows.
        prepared: the folder of prepared data that it was evaluated on.
    """
    data, folder = read_prepared_identity(prepared), folders.outputs / FOLDER
    metrics = findings.metrics
    log.info(
        "Test loss: %.3f nats a token (bigram %.3f, guessing %.3f); Fréchet distance %.0f. See %s.%s",
        metrics["eval/loss"],
        metrics["eval/loss_bigram"],
        metrics["eval/loss_uniform"],
        metrics["audio/fd"],
        folder,
        # A job of a multirun has no training in its folder to be reported.
        "" if is_multirun() else f" Next: {next_command('report', folders.outputs)}",
    )
    with child_run(values, folders, "evaluate", training) as run:
        run.log_parameters({"evaluate": values["evaluate"]})
        tested_on = f"{values['data']['kind']} test", data.digest
        run.log_dataset(*tested_on, str(prepared), context="evaluation")
        run.log_evaluation(metrics, export_digest(model), tested_on)
        # Of several evaluations none is the training's own, and figures on other data are not either.
        if folders.outputs == folders.training and training is not None and data.digest == training.data:
            run.mirror_to_parent(mirrored(metrics, HEADLINE))
            clips = sorted(path.name for path in (folder / "audio").glob("*.wav"))
            run.describe(SOUND, evaluation_note(metrics, clips, run.link))
        # The whole evaluation, so that models can be compared from wherever their runs are seen.
        run.log_artifacts(folder / "audio", "audio")
        for name in (*findings.files, *OWN_FILES):
            run.log_artifact(folder / name)


def write_evaluation(
    model: Path, training: TrainingIdentity | None, prepared: Path, group: Mapping[str, Any], folder: Path
) -> Findings:
    """Evaluate a model into a folder, which says last what it is of: one that does not was not finished.

    Processes that have joined share the work; the first alone writes.

    Args:
        model: an export, or another checkpoint.
        training: that it is from; None: nobody knows.
        prepared: the folder of prepared data, in the tokens of the model's codec.
        group: the group `evaluate` of the configuration.
        folder: where to write.

    Raises:
        ValueError: naming the setting that cannot be, or what does not fit together.
    """
    settings = read_evaluation(group)
    check_presence(settings.judging.named)
    subject = examine(model, prepared, training.context if training else None, settings)
    require_unchanged(model, training)
    findings = merge(part(subject) for part in PARTS)
    if rank_of_this_process() > 0:
        return findings
    (folder / IDENTITY).unlink(missing_ok=True)
    listened_to = subject.clips_of(*LISTENED_TO)
    write_clips(listened_to, subject.codec.sample_rate, folder / "audio", folder / "audio.json")
    findings.write_files(folder)
    say_what_is_uncertain(findings.metrics, len(subject.test))
    write_metrics(folder, findings.metrics, HEADLINE)
    data, used = read_prepared_identity(prepared), {"evaluate": dict(group)}
    write_yaml(folder / CONFIGURATION, used)
    write_identity(
        folder / IDENTITY,
        Identity(training, data=data.digest, configuration=fingerprint(used), recordings=data.recordings),
    )
    return findings


def say_what_is_uncertain(metrics: Mapping[str, float], n_documents: int) -> None:
    """Say where so few utterances were held out that nobody knows how far a figure can be trusted."""
    if unknown := [name for name in OF_HELD_OUT if f"{name}/low" not in metrics]:
        log.warning(
            "No interval is known of %s: held-out utterances are too few (%d). Raise data.split.test, or prepare more "
            "recordings.",
            " and ".join(unknown),
            n_documents,
        )
