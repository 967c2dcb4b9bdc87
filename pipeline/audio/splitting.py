"""Train, validation and test: who goes where."""

import hashlib
from collections.abc import Sequence

from pipeline.audio.configuration import SplitConfig

SPLITS = ("train", "validation", "test")


def split_sizes(n_groups: int, drawn: Sequence[str], config: SplitConfig) -> dict[str, int]:
    """How many groups (files or speakers) each held-out split gets: its fraction, but at least one.

    Args:
        n_groups: to be shared out.
        drawn: the splits that need some of them; training takes what is left.
        config: the fractions.

    Raises:
        ValueError: there are too few groups.
    """
    if n_groups < len(drawn):
        remedy = "add recordings" if config.by == "file" else "set data.split.by=file or add speakers"
        raise ValueError(
            f"data.split.by={config.by} needs at least {len(drawn)} {config.by}s, one for each split, "
            f"and the corpus has {n_groups}; {remedy}."
        )
    sizes: dict[str, int] = {}
    for position, split in enumerate((split for split in drawn if split != "train"), start=1):
        left = n_groups - sum(sizes.values()) - (len(drawn) - position)
        sizes[split] = min(max(1, round(n_groups * getattr(config, split))), left)
    return sizes


def seeded_hash(name: str, seed: int) -> bytes:
    """What names are drawn in the order of, so that no draw depends on the order in which a file system lists them."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()
