"""What the training stage says of its outputs: which training they are from, its settings, and its run."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.plumbing.files import read_json, read_yaml, write_json, write_yaml
from pipeline.plumbing.fingerprint import fingerprint
from pipeline.plumbing.redaction import redacted_values
from pipeline.provenance.digests import digest_of
from pipeline.provenance.identity import IDENTITY, Identity, TrainingIdentity, read_identity, write_identity
from pipeline.provenance.prepared_data import PreparedIdentity
from pipeline.tracking.run import TrackedRun

CHECKPOINT = "checkpoint.ckpt"
CONFIGURATION = "config.yaml"
# The run's name in the store, which is random, and where its data lay: no digest of outputs may depend on either, so
# they have a file of their own.
RUN = "run.json"
GROUPS = ("data", "codec", "model", "optimizer", "schedule", "trainer", "feed", "precision", "strategy", "seed")


def left_checkpoint(outputs: Path, remedy: str) -> Path:
    """The checkpoint that a training has left.

    Args:
        outputs: of the training.
        remedy: the command that trains.

    Raises:
        FileNotFoundError: when there is none.
    """
    path = outputs / "train" / CHECKPOINT
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; train a model: {remedy}")
    return path


def identify_training(
    data: PreparedIdentity, determinants: Mapping[str, Any], sequence_length: int
) -> TrainingIdentity:
    """Which training this is, before it has a checkpoint.

    Args:
        data: that it trains on.
        determinants: everything that its result depends on.
        sequence_length: tokens of its windows.
    """
    return TrainingIdentity(
        data.digest, data.codec, data.name, fingerprint(determinants), sequence_length=sequence_length
    )


def begin_outputs(folder: Path) -> None:
    """Take away what the outputs say of themselves, before the first of them changes."""
    (folder / IDENTITY).unlink(missing_ok=True)


def finish_outputs(folder: Path, values: Mapping[str, Any], identity: TrainingIdentity, run: TrackedRun) -> None:
    """Say which training the outputs are from, once all of them are in their places.

    Args:
        folder: where the checkpoint and metrics lie.
        values: the composed configuration.
        identity: as `identify_training` gives it.
        run: the training's.
    """
    identity = replace(identity, checkpoint=digest_of(folder / CHECKPOINT))
    write_yaml(folder / CONFIGURATION, redacted_values({group: values[group] for group in GROUPS}))
    where = {"prepared": values["paths"]["prepared"]}
    write_json(folder / RUN, {**run.reference(), "checkpoint": identity.checkpoint, **where})
    run.set_tags(identity.tags())
    run.log_artifact(folder / CONFIGURATION)
    write_identity(folder / IDENTITY, Identity(identity))


def latest_training(folder: Path) -> Identity | None:
    """Which training the outputs in `folder` are from; None where there are none, or they do not say."""
    return read_identity(folder / IDENTITY)


def recorded_configuration(folder: Path) -> dict[str, Any]:
    """The settings that the outputs in `folder` were trained with; empty where they do not say."""
    path = folder / CONFIGURATION
    return dict(read_yaml(path)) if path.exists() else {}


def is_trained(folder: Path, values: Mapping[str, Any]) -> bool:
    """Whether the outputs in `folder` are whole, and of a training with the settings of `values`."""
    settings = redacted_values({group: values[group] for group in GROUPS})
    return latest_training(folder) is not None and recorded_configuration(folder) == settings


def prepared_for(folder: Path) -> Path | None:
    """Where the data lay that the outputs in `folder` were trained on; None where they do not say.

    Others may lie there by now.
    """
    path = folder / RUN
    prepared = read_json(path).get("prepared") if path.exists() else None
    return Path(prepared) if prepared else None


def run_of(folder: Path, training: TrainingIdentity | None) -> dict[str, Any]:
    """What leads to the run of a training; empty unless its own outputs, or their reference to it, lie in `folder`."""
    path = folder / RUN
    reference = dict(read_json(path)) if path.exists() else {}
    return reference if training is not None and reference.get("checkpoint") == training.checkpoint else {}
