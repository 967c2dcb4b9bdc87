"""Train, validation and test: who goes where, and which recordings are copies."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from pipeline.audio.configuration import SplitConfig
from pipeline.audio.corpora.corpus import Recording

SPLITS = ("train", "validation", "test")


def assign_splits(recordings: Sequence[Recording], config: SplitConfig, seed: int) -> dict[str, str]:
    """The split of each recording, by its id.

    Groups (files or speakers) are drawn in the order of their seeded hashes, so that the result does not depend on
    the order in which a file system lists them. Each split gets its fraction of the groups, but at least one.
    Where the corpus publishes a split for every recording, that one is taken.

    Raises:
        ValueError: there are too few groups for three splits, or the published splits are unknown or leave one empty.
    """
    if recordings and all(recording.split is not None for recording in recordings):
        return _published_splits(recordings)
    groups = defaultdict(list)
    for recording in recordings:
        groups[recording.id if config.by == "file" else recording.speaker].append(recording.id)
    if len(groups) < len(SPLITS):
        remedy = "add recordings" if config.by == "file" else "set data.split.by=file or add speakers"
        raise ValueError(
            f"data.split.by={config.by} needs at least {len(SPLITS)} {config.by}s, one for each split, "
            f"and the corpus has {len(groups)}; {remedy}."
        )
    order = sorted(groups, key=lambda group: (_seeded_hash(group, seed), group))
    n_validation = min(max(1, round(len(order) * config.validation)), len(order) - 2)
    n_test = min(max(1, round(len(order) * config.test)), len(order) - n_validation - 1)
    split_of_group = dict.fromkeys(order, "train")
    split_of_group.update(dict.fromkeys(order[:n_validation], "validation"))
    split_of_group.update(dict.fromkeys(order[n_validation : n_validation + n_test], "test"))
    return {name: split_of_group[group] for group, names in groups.items() for name in names}


def _published_splits(recordings: Sequence[Recording]) -> dict[str, str]:
    splits = {recording.id: str(recording.split) for recording in recordings}
    for name, split in splits.items():
        if split not in SPLITS:
            raise ValueError(f"{name}: the corpus puts it into the split {split!r}, which is none of {SPLITS}.")
    if empty := sorted(set(SPLITS) - set(splits.values())):
        raise ValueError(f"the corpus's own split leaves {empty[0]} without a usable recording; is it complete?")
    return splits


def _seeded_hash(group: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{group}".encode()).hexdigest()


def find_duplicates(hashes: Mapping[str, str]) -> dict[str, str]:
    """The recordings whose content another one has too, each with the first (by id) that has it.

    Args:
        hashes: the SHA-256 of each recording's content, by its id.
    """
    first: dict[str, str] = {}
    duplicates = {}
    for name in sorted(hashes):
        original = first.setdefault(hashes[name], name)
        if original != name:
            duplicates[name] = original
    return duplicates
