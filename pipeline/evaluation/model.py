"""The model that is evaluated: where its weights lie, which training they are from, and what it speaks through."""

import logging
from collections.abc import Mapping
from pathlib import Path

from pipeline.checkpoints.choices import TRAINED
from pipeline.configuration.command_line import command, preparing_command, repeating_command
from pipeline.configuration.composed import cache_folder
from pipeline.evaluation.configuration import EXPORT
from pipeline.provenance.digests import digest_of
from pipeline.provenance.exports import CODEC
from pipeline.provenance.identity import TrainingIdentity, identity_path, read_identity, require_current
from pipeline.provenance.prepared_data import find_prepared, read_prepared_identity
from pipeline.provenance.training import CHECKPOINT, latest_training, left_checkpoint

log = logging.getLogger(__name__)


def find_model(outputs: Path, weights: str) -> Path:
    """Where the weights lie that `evaluate.weights` names: the export, or the checkpoint that a training has left.

    Raises:
        FileNotFoundError: when there are none; names the command that makes them.
    """
    if weights != EXPORT:
        return left_checkpoint(outputs, repeating_command())
    export = outputs / "export"
    if not export.exists():
        raise FileNotFoundError(f"{export} does not exist; convert the checkpoint: {_converting_command()}")
    return export


def checkpoint_weights(weights: str) -> str:
    """Which of a checkpoint's weights are read; an export holds those alone that it was made of."""
    return TRAINED if weights == EXPORT else weights


def identify_model(model: Path, outputs: Path) -> TrainingIdentity | None:
    """Which training a model is from; None where it does not say.

    Args:
        model: as `find_model` gives it.
        outputs: of a training.

    Raises:
        ValueError: when it was converted from what lay in `outputs` before another training did.
    """
    latest = latest_training(outputs / "train")
    identity = latest if model == outputs / "train" / CHECKPOINT else read_identity(identity_path(model))
    require_current(model, identity, latest, _converting_command())
    if identity is None or identity.training is None:
        log.warning("%s does not say which training it is from; its figures are those of no training.", model)
        return None
    return identity.training


def require_unchanged(model: Path, training: TrainingIdentity | None) -> None:
    """Refuse an export that was replaced after it was identified: what has been read may be of either.

    Args:
        model: an export, or another checkpoint.
        training: that it was from.

    Raises:
        ValueError: naming both trainings.
    """
    identity = read_identity(identity_path(model))
    if identity is not None and identity.training != training:
        raise ValueError(
            f"{model} was replaced while it was evaluated (of {training or 'an unknown training'} before, of "
            f"{identity.training or 'an unknown training'} now); evaluate it again."
        )


def codec_folder(model: Path, prepared: Path) -> Path:
    """The codec that a model speaks through: its own where it brings one along, else that of its tokens."""
    own = model / CODEC
    return own if own.is_dir() else prepared / CODEC


def find_data(
    model: Path, training: TrainingIdentity | None, paths: Mapping[str, str], recorded: Path | None = None
) -> Path:
    """The prepared data to evaluate a model on: its training's where they are, else others in its codec's tokens.

    Args:
        model: an export, or another checkpoint.
        training: that it is from, if that is known.
        paths: the configuration's.
        recorded: where its training's data lay, if it says so.

    Raises:
        FileNotFoundError, ValueError: when there are none, or their tokens are of another codec than the model's.
    """
    usual, cache = Path(paths["prepared"]), cache_folder(paths)
    if training and (found := find_prepared(training.data, training.settings, usual, cache, recorded)):
        return found
    data = read_prepared_identity(usual, preparing_command())
    # A checkpoint alone whose training nobody knows can only be held against the size of the vocabulary.
    brought, learnt = model / CODEC, training.codec if training else data.codec
    if data.codec != (digest_of(brought) if brought.is_dir() else learnt):
        raise ValueError(
            f"The tokens in {usual} are of another codec than that of {model}: equal numbers mean other sounds. "
            f"Prepare the data that the model was trained on, or train and convert again: {preparing_command()}"
        )
    if training:
        log.warning("%s are other data than those that %s was trained on.", usual, model)
    return usual


def _converting_command() -> str:
    return command("convert_checkpoint", ("paths",))
