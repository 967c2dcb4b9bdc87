"""The tables of an evaluation that models are compared by, read so that a damaged one is told and not computed with."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pipeline.plumbing.files import read_csv

UTTERANCES, CLIPS, MOMENTS = "utterances.csv", "clips.csv", "clips.safetensors"
PAIRS, JUDGEMENTS = "minimal_pairs.csv", "judgements.csv"
EVALUATE_AGAIN = "evaluate the model again (python -m pipeline.evaluate)"

Row = Mapping[str, str]
# The columns that are read, and what each holds; a number may be blank.
COLUMNS: Mapping[str, Mapping[str, Callable[[str], object]]] = {
    UTTERANCES: {"document": str, "utterance": str, "speaker": str, "seconds": float, "n_tokens": float, "nats": float},
    CLIPS: {
        "kind": str, "number": str, "document": str, "speaker": str, "seed": str, "flatness": float,
        "mel_flux_db": float, "modulation_depth": float,
    },
    PAIRS: {"task": str, "document": str, "speaker": str, "nats_true": float, "nats_false": float},
    JUDGEMENTS: {"judge": str, "measure": str, "signal": str, "number": str, "value": float},
}  # fmt: skip


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of one of the tables; none where it was not written, as by an evaluation without that part.

    Raises:
        ValueError: when it lacks a column, was cut off, or holds something else than numbers; the message names it.
    """
    if not path.exists():
        return []
    rows = read_csv(path)
    for number, row in enumerate(rows, start=2):
        for name, kind in COLUMNS[path.name].items():
            _require(path, number, name, row.get(name), kind)
    return rows


def read_moments(path: Path) -> dict[str, np.ndarray]:
    """The Fréchet moments of every clip, as `pipeline.evaluation.sound.clip_moments` lays them out, and references'.

    Raises:
        ValueError: when the file is damaged; the message names it.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); {EVALUATE_AGAIN}.") from error


def _require(path: Path, line: int, column: str, value: str | None, kind: Callable[[str], object]) -> None:
    """Refuse a cell that is not there, or no number where one belongs."""
    if value is None:
        raise ValueError(f"{path} has nothing for {column!r} in line {line}; {EVALUATE_AGAIN}.")
    try:
        kind(value or "nan")
    except ValueError as error:
        raise ValueError(f"{path} has {value!r} for {column!r} in line {line}; {EVALUATE_AGAIN}.") from error
