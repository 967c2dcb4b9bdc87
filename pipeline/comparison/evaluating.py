"""Models that were not evaluated yet, or otherwise than the others, are: on the same utterances, prompts and seeds."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.comparison.evaluated import Evaluated, missing_tables, read_evaluated
from pipeline.comparison.finding.found import Found
from pipeline.comparison.pairing import on_the_same_recordings, require_comparable
from pipeline.comparison.recordings import other_recordings
from pipeline.configuration.composed import cache_folder
from pipeline.evaluation.evaluate import write_evaluation
from pipeline.evaluation.model import find_data
from pipeline.plumbing.files import read_yaml
from pipeline.plumbing.fingerprint import fingerprint
from pipeline.plumbing.lock import in_turn
from pipeline.plumbing.nested import leaves
from pipeline.provenance.digests import digest_of
from pipeline.provenance.exports import CODEC, export_digest
from pipeline.provenance.identity import IDENTITY, SHORT, TrainingIdentity, identity_path, read_identity
from pipeline.provenance.prepared_data import find_prepared, read_prepared_identity
from pipeline.provenance.training import prepared_for

EVALUATIONS = "evaluations"

log = logging.getLogger(__name__)

# What decides on prompts, seeds and lengths. How tokens are drawn may differ: that is part of what is compared.
SHARED_SETTINGS = ("seed", "n_prompted", "n_unprompted", "prompt_seconds", "seconds")


def evaluate_all(found: Sequence[Found], values: Mapping[str, Any], cache: Path) -> list[Evaluated]:
    """The evaluations of all models, those that are missing made anew in `cache`.

    The first evaluation that has its tables says on which data, prompts and seeds; with none, the configuration does
    for the first model, and that one for all others.

    Args:
        found: the models.
        values: the composed configuration.
        cache: where evaluations that are made here are kept.

    Raises:
        FileNotFoundError, ValueError: when a model has no evaluation that can be compared, and none can be made.
    """
    at_hand = [_read(one) for one in found]
    leader = next((own for own in at_hand if own), None)
    evaluated: list[Evaluated] = []
    for one, own in zip(found, at_hand, strict=True):
        takes_part = own is not None and leader is not None and _pairs(own, leader)
        evaluated.append(own if own and takes_part else _evaluate(one, own, leader, values, cache))
        leader = leader or evaluated[0]
    return evaluated


def _read(found: Found) -> Evaluated | None:
    """The evaluation of a model, where it has one with all its tables."""
    if found.evaluation is None or missing_tables(found.evaluation):
        return None
    return read_evaluated(found, found.evaluation)


def _pairs(own: Evaluated, leader: Evaluated) -> bool:
    """Whether two evaluations can be paired as they are."""
    return _other_setting(own, leader) is None and on_the_same_recordings(own, leader)


def _other_setting(own: Evaluated, leader: Evaluated) -> str | None:
    """The first setting that keeps clips from being pairs."""
    return next((name for name in SHARED_SETTINGS if own.settings.get(name) != leader.settings.get(name)), None)


def _evaluate(
    found: Found, own: Evaluated | None, leader: Evaluated | None, values: Mapping[str, Any], cache: Path
) -> Evaluated:
    """Evaluate a model on the data, prompts and seeds of `leader`, unless that was done before.

    Raises:
        FileNotFoundError: when its export is not at hand.
        ValueError: when it speaks the tokens of no data that are at hand.
    """
    if found.export is None:
        if own and leader and not on_the_same_recordings(own, leader):
            require_comparable(leader, own)
        raise FileNotFoundError(_why_not(found, own, leader))
    identity = read_identity(identity_path(found.export))
    training = identity.training if identity else None
    prepared = _data(found, training, leader, values["paths"])
    group = _settings(own, leader, values["evaluate"])
    key = fingerprint(export_digest(found.export), group, read_prepared_identity(prepared).digest)
    folder = cache / EVALUATIONS / key[:SHORT]
    with in_turn(folder.with_name(f".{folder.name}.lock"), "A comparison", folder):
        if not (folder / IDENTITY).exists():
            log.info("Evaluating %s%s.", found.label, f" on the prompts and seeds of {leader.label}" if leader else "")
            write_evaluation(found.export, training, prepared, group, folder)
    return read_evaluated(found, folder)


def _settings(own: Evaluated | None, leader: Evaluated | None, group: Mapping[str, Any]) -> dict[str, Any]:
    """The leader's settings, but for how this model's tokens were drawn where it has an evaluation of its own."""
    if leader is None:
        return dict(group)
    shared = {name: leader.settings[name] for name in SHARED_SETTINGS if name in leader.settings}
    return {**group, **(own or leader).settings, **shared, "device": group["device"]}


def _data(found: Found, training: TrainingIdentity | None, leader: Evaluated | None, paths: Mapping[str, str]) -> Path:
    """The prepared data to evaluate on: the leader's, or, where the codec is another, the model's own.

    Raises:
        FileNotFoundError, ValueError: when they are not at hand, or of other recordings; the message says what to do.
    """
    assert found.export is not None
    recorded = prepared_for(found.trained_with.parent) if found.trained_with else None
    if leader is None:
        return find_data(found.export, training, paths, recorded)
    usual, cache, codec = Path(paths["prepared"]), cache_folder(paths), digest_of(found.export / CODEC)
    theirs = find_prepared(leader.identity.data, _name_of_data(leader.identity.training), usual, cache, recorded)
    if theirs and read_prepared_identity(theirs).codec == codec:
        return theirs
    own = find_prepared(training.data, training.settings, usual, cache, recorded) if training else None
    if own and _of_the_same(own, leader):
        return own
    settings = read_prepared_identity(own).settings if own else _trained_with(found)
    held_against = read_prepared_identity(theirs).settings if theirs else leader.data_settings
    raise ValueError(
        other_recordings(found.label, settings, leader.label, held_against)
        or _not_at_hand(found, leader, training is not None and training.codec == _codec_of(leader), usual)
    )


def _name_of_data(training: TrainingIdentity | None) -> str:
    """The name of the settings that the data of a training were prepared with."""
    return training.settings if training else ""


def _of_the_same(prepared: Path, leader: Evaluated) -> bool:
    """Whether prepared data are of the leader's recordings, in whichever codec's tokens."""
    recordings = leader.identity.recordings
    return bool(recordings) and read_prepared_identity(prepared).recordings == recordings


def _trained_with(found: Found) -> dict[str, Any]:
    """The settings of a model's training, {dotted name: value}; empty where they are not at hand."""
    return dict(leaves(read_yaml(found.trained_with))) if found.trained_with else {}


def _codec_of(leader: Evaluated) -> str | None:
    """The codec through which a model speaks; None where nobody knows."""
    return leader.identity.training.codec if leader.identity.training else None


def _not_at_hand(found: Found, leader: Evaluated, same_codec: bool, usual: Path) -> str:
    """That the data to evaluate a model on are missing, and how they are had."""
    if same_codec:
        needed, whose = f"the data that {leader.label} was evaluated on", leader.label
    else:
        needed, whose = f"the data in the tokens of its own codec, which is not that of {leader.label},", found.label
    return (
        f"To evaluate {found.label} on the utterances of {leader.label}, {needed} must be at hand, and they are "
        f"neither in {usual} nor in the cache. Prepare them with the settings that {whose} was trained with, and name "
        "their folder in paths.prepared."
    )


def _why_not(found: Found, own: Evaluated | None, leader: Evaluated | None) -> str:
    """Why a model cannot be compared, and what would help."""
    if own and leader and (name := _other_setting(own, leader)):
        theirs = leader.settings.get(name)
        return (
            f"{found.label} was evaluated with evaluate.{name}={own.settings.get(name)} and {leader.label} with "
            f"{theirs}: their clips are no pairs, and the export to evaluate anew is not at hand. Name the export, or "
            f"evaluate it with evaluate.{name}={theirs}."
        )
    if found.evaluation is not None:
        return (
            f"The evaluation of {found.label} in {found.evaluation} is of an earlier version, without "
            f"{missing_tables(found.evaluation)[0]}, and its export is not beside it; evaluate it again (python -m "
            "pipeline.evaluate), or name its export."
        )
    return found.remedy
