"""Which recordings models are of, and how to tell that they are of others: two such have nothing to be paired by."""

from collections.abc import Mapping
from typing import Any

from pipeline.provenance.prepared_data import deciding_settings, differing_settings

# Settings in which two corpora differ that are named one by one; more of them are another corpus altogether.
MOST_NAMED = 4
KIND = "data.kind"
NO_COUNTERPART = "No utterance of the one has a counterpart in the other's data, and nothing can be compared."


def other_recordings(label: str, settings: Mapping[str, Any], other: str, theirs: Mapping[str, Any]) -> str | None:
    """That two models are of other recordings, by which settings, and what to do; None where no setting tells it.

    Args:
        label: what the one model is called.
        settings: of its data, or of its whole training, {dotted name: value}; empty where they are not known.
        other: what the one is called that it is held against.
        theirs: the settings of that one.
    """
    mine, others = _of_corpus(settings), _of_corpus(theirs)
    changed = differing_settings(mine, others) if mine and others else {}
    if not changed:
        return None
    names = list(changed)
    clauses = [
        f"{name} is {changed[name][0]} for {label} and {changed[name][1]} for {other}" for name in names[:MOST_NAMED]
    ]
    more = f", and {len(names) - MOST_NAMED} settings more" if len(names) > MOST_NAMED else ""
    return (
        f"{label} and {other} are of other recordings: {'; '.join(clauses)}{more}. {NO_COUNTERPART} "
        f"{_remedy(label, other, names, others)}"
    )


def _of_corpus(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide on the recordings and their splits; those of the codec change tokens alone."""
    return {name: value for name, value in deciding_settings(settings).items() if name.startswith("data.")}


def _remedy(label: str, other: str, names: list[str], theirs: Mapping[str, Any]) -> str:
    """What makes two models comparable that differ in these settings."""
    if KIND in names or len(names) > MOST_NAMED or any(isinstance(theirs.get(name), dict | list) for name in names):
        return f"Train {label} anew with the `data` settings of {other}, or the other way round."
    words = " ".join(f"{name}={'null' if theirs.get(name) is None else theirs[name]}" for name in names)
    return f"Prepare data and train {label} anew with {words}."
