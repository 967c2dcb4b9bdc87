"""Which units two evaluations share, and what of two models can be compared at all."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.comparison.evaluated import CLIPS, PAIRS, UTTERANCES, Evaluated, Row
from pipeline.provenance.identity import SHORT
from pipeline.statistics.resampling import Design


@dataclass(frozen=True)
class Pairing:
    """Rows of two tables that belong together, in one order.

    Attributes:
        a: of the one model.
        b: of the other.
        n_left_out: rows of either table that the other has nothing to hold against.
    """

    a: Sequence[Row]
    b: Sequence[Row]
    n_left_out: int

    def __len__(self) -> int:
        return len(self.a)

    def design(self) -> Design:
        """How the pairs came about: as many of each speaker, and those of one utterance together."""
        speakers = [row.get("speaker") or row.get("kind", "") for row in self.a]
        return Design(len(self), strata=speakers, clusters=[_origin(i, row) for i, row in enumerate(self.a)])


def _origin(number: int, row: Row) -> Hashable:
    """What a row comes from: its utterance, or nothing but itself."""
    return row.get("utterance") or row.get("document") or number


def on_the_same_recordings(a: Evaluated, b: Evaluated) -> bool:
    """Whether both were evaluated on the same utterances, in whichever codec's tokens."""
    return same_data(a, b) or (bool(a.identity.recordings) and a.identity.recordings == b.identity.recordings)


def require_comparable(a: Evaluated, b: Evaluated) -> None:
    """Refuse models that were evaluated on other recordings.

    Raises:
        ValueError: naming both, and the remedy.
    """
    if not on_the_same_recordings(a, b):
        raise ValueError(
            f"{a.label} and {b.label} were evaluated on other recordings ({_data(a)}, {_data(b)}): no utterance of the "
            "one has a counterpart, and nothing can be compared. Train both on data of equal `data` settings, with one "
            "data.seed."
        )


def same_data(a: Evaluated, b: Evaluated) -> bool:
    """Whether both were evaluated on the same utterances in the same tokens."""
    return a.identity.data == b.identity.data


def pair_utterances(a: Evaluated, b: Evaluated) -> Pairing:
    """The utterances that both have scored."""
    return _pair(a.table(UTTERANCES), b.table(UTTERANCES), ("utterance",))


def pair_clips(a: Evaluated, b: Evaluated, kinds: Sequence[str]) -> Pairing:
    """The clips of some kinds that both made up from the same utterance, or from nothing, with the same seed."""
    return _pair(_clips(a, kinds), _clips(b, kinds), ("kind", "number", "utterance", "seed"))


def pair_minimal_pairs(a: Evaluated, b: Evaluated) -> Pairing:
    """The minimal pairs that both were asked about."""
    return _pair(_numbered(a.table(PAIRS)), _numbered(b.table(PAIRS)), ("task", "document", "number"))


def column(rows: Sequence[Row], name: str) -> np.ndarray:
    """A column as numbers; what is blank or absent is NaN."""
    return np.array([float(row.get(name) or "nan") for row in rows])


def _pair(a: Sequence[Row], b: Sequence[Row], keys: Sequence[str]) -> Pairing:
    ours, theirs = (_by_key(rows, keys) for rows in (a, b))
    shared = [key for key in ours if key in theirs]
    return Pairing(
        [ours[key] for key in shared], [theirs[key] for key in shared], len(ours) + len(theirs) - 2 * len(shared)
    )


def _by_key(rows: Sequence[Row], keys: Sequence[str]) -> dict[tuple[str, ...], Row]:
    return {tuple(row.get(key, "") for key in keys): row for row in rows}


def _clips(evaluated: Evaluated, kinds: Sequence[str]) -> list[Row]:
    """The clips of some kinds, with the name of their utterance and their place among those of their kind."""
    names = {row["document"]: row["utterance"] for row in evaluated.table(UTTERANCES)}
    places: dict[str, int] = {}
    rows: list[Row] = []
    for row in evaluated.table(CLIPS):
        place = places[row["kind"]] = places.get(row["kind"], -1) + 1
        if row["kind"] in kinds:
            rows.append({**row, "utterance": names.get(row["document"], ""), "place": str(place)})
    return rows


def _numbered(rows: Sequence[Row]) -> list[Row]:
    """Rows numbered within their task and document."""
    counts: dict[tuple[str, str], int] = {}
    numbered: list[Row] = []
    for row in rows:
        key = row["task"], row["document"]
        counts[key] = counts.get(key, -1) + 1
        numbered.append({**row, "number": str(counts[key])})
    return numbered


def _data(evaluated: Evaluated) -> str:
    return f"data {evaluated.identity.data[:SHORT] or 'unknown'}"
