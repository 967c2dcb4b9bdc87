"""Train, validation and test: who goes where."""

import hashlib

from pipeline.audio.configuration import SplitConfig

SPLITS = ("train", "validation", "test")


def split_sizes(n_groups: int, config: SplitConfig) -> tuple[int, int]:
    """How many groups (files or speakers) validation and test get: each its fraction, but at least one.

    Raises:
        ValueError: there are too few groups for three splits.
    """
    if n_groups < len(SPLITS):
        remedy = "add recordings" if config.by == "file" else "set data.split.by=file or add speakers"
        raise ValueError(
            f"data.split.by={config.by} needs at least {len(SPLITS)} {config.by}s, one for each split, "
            f"and the corpus has {n_groups}; {remedy}."
        )
    n_validation = min(max(1, round(n_groups * config.validation)), n_groups - 2)
    n_test = min(max(1, round(n_groups * config.test)), n_groups - n_validation - 1)
    return n_validation, n_test


def seeded_hash(name: str, seed: int) -> bytes:
    """What names are drawn in the order of, so that no draw depends on the order in which a file system lists them."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()
