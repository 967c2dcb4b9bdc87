"""Which units two evaluations share, and what of two models can be compared at all."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.comparison.evaluated import Evaluated
from pipeline.comparison.recordings import NO_COUNTERPART, other_recordings
from pipeline.comparison.tables import CLIPS, JUDGEMENTS, PAIRS, UTTERANCES, Row
from pipeline.evaluation.clip import GENERATED
from pipeline.evaluation.speakers import Speakers
from pipeline.provenance.identity import SHORT
from pipeline.statistics.resampling import Design

# What a clip is told by: two that agree in it are made from the same utterance, or from nothing, with the same seed.
CLIP = ("kind", "number", "utterance", "seed")


@dataclass(frozen=True)
class Pairing:
    """Rows of two tables that belong together, in one order.

    Attributes:
        a: of the one model.
        b: of the other.
        speakers: whether both models have heard who speaks.
        n_left_out: rows of either table that the other has nothing to hold against.
    """

    a: Sequence[Row]
    b: Sequence[Row]
    speakers: Speakers
    n_left_out: int

    def __len__(self) -> int:
        return len(self.a)

    def design(self) -> Design:
        """How the pairs came about: as their evaluations' intervals have it, those of one utterance together."""
        return self.speakers.design(
            [row.get("speaker", "") for row in self.a],
            [_origin(i, row) for i, row in enumerate(self.a)],
            [row.get("kind", "") for row in self.a],
        )

    def where(self, name: str, value: str) -> "Pairing":
        """Those pairs that have this value in this column."""
        chosen = [i for i, row in enumerate(self.a) if row[name] == value]
        return replace(self, a=[self.a[i] for i in chosen], b=[self.b[i] for i in chosen])


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
    if on_the_same_recordings(a, b):
        return
    raise ValueError(
        other_recordings(b.label, b.data_settings, a.label, a.data_settings)
        or f"{a.label} and {b.label} were evaluated on other recordings ({_data(a)}, {_data(b)}). {NO_COUNTERPART} "
        "Train both on data of equal `data` settings, with one data.seed."
    )


def same_data(a: Evaluated, b: Evaluated) -> bool:
    """Whether both were evaluated on the same utterances in the same tokens."""
    return a.identity.data == b.identity.data


def same_training(a: Evaluated, b: Evaluated) -> bool:
    """Whether both are from the same checkpoint of one training."""
    return a.identity.training is not None and a.identity.training == b.identity.training


def pair_utterances(a: Evaluated, b: Evaluated) -> Pairing:
    """The utterances that both have scored."""
    return _pair(a, b, lambda model: model.table(UTTERANCES), ("utterance",))


def pair_clips(a: Evaluated, b: Evaluated, kinds: Sequence[str]) -> Pairing:
    """The clips of some kinds that both made up from the same utterance, or from nothing, with the same seed."""
    return _pair(a, b, lambda model: _clips(model, kinds), CLIP)


def pair_judgements(a: Evaluated, b: Evaluated) -> Pairing:
    """What the same judges said of the clips that both made up, by the same measure."""
    return _pair(a, b, _judgements, ("judge", "measure", *CLIP))


def pair_minimal_pairs(a: Evaluated, b: Evaluated) -> Pairing:
    """The minimal pairs that both were asked about."""
    return _pair(a, b, lambda model: _numbered(model.table(PAIRS)), ("task", "document", "number"))


def column(rows: Sequence[Row], name: str) -> np.ndarray:
    """A column as numbers; what is blank or absent is NaN."""
    return np.array([float(row.get(name) or "nan") for row in rows])


def _pair(a: Evaluated, b: Evaluated, rows_of: Callable[[Evaluated], Sequence[Row]], keys: Sequence[str]) -> Pairing:
    ours, theirs = (_by_key(rows_of(model), keys) for model in (a, b))
    shared = [key for key in ours if key in theirs]
    return Pairing(
        [ours[key] for key in shared],
        [theirs[key] for key in shared],
        a.speakers.together(b.speakers),
        len(ours) + len(theirs) - 2 * len(shared),
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


def _judgements(evaluated: Evaluated) -> list[Row]:
    """The judgements of clips that the model made up, each beside what its clip is told by."""
    clips = {(row["kind"], row["number"]): row for row in _clips(evaluated, GENERATED)}
    return [
        {**clip, **row}
        for row in evaluated.table(JUDGEMENTS)
        if (clip := clips.get((row["signal"], row["number"]))) is not None
    ]


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
