"""Audio that several corpora of a mixture hold: what must not be trained on, and what need not be trained on twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.tokens.audio_hashes import read_audio_hashes
from pipeline.training.configuration import KEEP

HELD_OUT = ("validation", "test")


class UntoldAudioError(ValueError):
    """Prepared data do not say which audio their documents hold."""


@dataclass(frozen=True)
class Overlap:
    """Documents that one corpus has in common with a split of another.

    Attributes:
        corpus: whose training documents they are.
        other: the other one's name; a corpus may also overlap with its own held-out splits.
        split: of the other one.
        n_documents: how many.
        n_of: training documents of the corpus.
    """

    corpus: str
    other: str
    split: str
    n_documents: int
    n_of: int

    @property
    def clause(self) -> str:
        """What was found, without whose documents they are."""
        return f"{self.n_documents:,} hold audio of the {self.split} split of {self.other}"


@dataclass(frozen=True)
class Duplicates:
    """What is the same in the corpora of a mixture.

    Attributes:
        overlaps: a row for each pair that has something in common.
        repeated: which training documents of each corpus are another's held-out audio, or nothing but audio of corpora
            that come before, bool [documents] by name.
    """

    overlaps: Sequence[Overlap]
    repeated: Mapping[str, np.ndarray]


def find_duplicates(
    mixed: Mapping[str, Path], n_documents: Mapping[str, int], held_out: Mapping[str, Path]
) -> Duplicates:
    """Compare corpora by the hashes of their recordings, wherever these begin and end in a document.

    A document is held-out audio if any recording in it is; it is a repetition if all of them are trained on before.
    Memory holds some 16 bytes a recording.

    Args:
        mixed: the folders that are trained on, by name, the first ones first.
        n_documents: training documents of each.
        held_out: the folders whose validation and test splits are held out, by name.

    Raises:
        UntoldAudioError: a folder does not say which audio its documents hold.
        ValueError: what it says is damaged.
    """
    held = {(name, split): _hashes(folder / split)[1] for name, folder in held_out.items() for split in HELD_OUT}
    before: dict[str, np.ndarray] = {}
    overlaps, repeated = [], {}
    for name, folder in mixed.items():
        documents, hashes = _hashes(folder / "train")
        n, n_recordings = n_documents[name], np.bincount(documents)
        if len(n_recordings) != n:
            raise ValueError(
                f"{folder} lists the audio of {len(n_recordings)} documents, and has {n}; prepare it again."
            )
        found = {
            place: np.bincount(documents[np.isin(hashes, other)], minlength=n) > 0 for place, other in held.items()
        }
        for other, theirs in before.items():
            found[other, "train"] = np.bincount(documents[np.isin(hashes, theirs)], minlength=n) == n_recordings
        overlaps += [Overlap(name, *place, int(same.sum()), n) for place, same in found.items() if same.any()]
        repeated[name] = np.logical_or.reduce(list(found.values()))
        # What is left out here may be new to the next one.
        before[name] = np.unique(hashes[~repeated[name][documents]])
    return Duplicates(overlaps, repeated)


def _hashes(split: Path) -> tuple[np.ndarray, np.ndarray]:
    table = read_audio_hashes(split)
    if table is None:
        raise UntoldAudioError(
            f"feed.mixture: {split.parent} does not say which audio its documents hold, as data of earlier versions do "
            f"not; prepare it again, or mix without looking for duplicates (feed.duplicates={KEEP})."
        )
    return table
