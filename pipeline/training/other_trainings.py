"""Interrupted trainings beside the one that begins: how many, and whether one of them is what was meant."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.plumbing.files import read_json
from pipeline.plumbing.nested import differing, leaves
from pipeline.training.interrupted import DESCRIPTION, PROGRAM, InterruptedTraining, interrupted_trainings

log = logging.getLogger(__name__)

# A training that differs in more settings is another one on purpose.
MOST_DIFFERENCES = 2
LONGEST_VALUE = 40


def say_others(root: Path, own: Path, identity: Mapping[str, Any], begins_anew: bool) -> None:
    """Say how many interrupted trainings lie in `root`, and which one a training that begins anew nearly goes on from.

    Args:
        root: holds the folders of all trainings.
        own: that of this training.
        identity: what this training is determined by.
        begins_anew: whether it goes on from nothing.
    """
    left = [training for training in interrupted_trainings(root) if not training.is_under_way]
    others = [training for training in left if training.path != own]
    if not others:
        return
    log.info(
        "Other interrupted trainings in %s: %d, %.1f GB. `%s` lists and removes them.",
        root,
        len(others),
        sum(training.n_bytes for training in others) / 1e9,
        PROGRAM,
    )
    if begins_anew and (near := _nearest(others, identity)):
        log.info("This training begins anew. %s", near)


def _nearest(others: Sequence[InterruptedTraining], identity: Mapping[str, Any]) -> str:
    """Which of the trainings differs the least, and in what; empty where none is near."""
    compared = [(training, _differences(training.path, identity)) for training in others if training.step]
    near = [(training, found) for training, found in compared if 0 < len(found) <= MOST_DIFFERENCES]
    if not near:
        return ""
    training, found = min(near, key=lambda one: len(one[1]))
    clauses = ", ".join(f"{name} ({_short(there)} there, {_short(here)} here)" for name, (there, here) in found.items())
    return f"The one that stopped at step {training.step} differs from it in {clauses}."


def _differences(folder: Path, identity: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings in which an interrupted training differs, with both values; empty where it does not say."""
    try:
        theirs = read_json(folder / DESCRIPTION)["identity"]
    # Descriptions are for people alone, and in nobody's way.
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return differing(dict(leaves(theirs)), dict(leaves(json.loads(json.dumps(identity)))))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
