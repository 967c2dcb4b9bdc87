"""Where a sweep of trainings lies: in a folder named by what was asked for, so that the same command finds it."""

import re
from collections.abc import Sequence

from pipeline.plumbing.fingerprint import fingerprint

MULTIRUN = ("-m", "--multirun")
FOLDER = "hydra.sweep.dir"
# Settings that do not decide which sweep this is: how jobs run, how many there are, and where they are recorded.
INDIFFERENT = ("hydra.", "hydra/", "sweep.", "tracking")
DIGEST = 6
MOST_KEYS = 4


def with_folder(words: Sequence[str]) -> list[str]:
    """The command line of a training, if it is a sweep, with `-m` in front and the folder of the sweep.

    Hydra's parser takes settings in one piece: none after an option that stands behind others.
    """
    others = [word for word in words if word not in MULTIRUN]
    if len(others) == len(words):
        return list(words)
    settings = sorted(word for word in others if not word.startswith(INDIFFERENT))
    if not any(word.startswith(f"{FOLDER}=") for word in others):
        name = "-".join([*_swept(settings), fingerprint(settings)[:DIGEST]])
        first = next((i for i, word in enumerate(others) if _is_setting(word)), len(others))
        others.insert(first, f"{FOLDER}=multirun/{name}")
    return [MULTIRUN[0], *others]


def _is_setting(word: str) -> bool:
    return word.startswith("~") or ("=" in word and not word.startswith("-"))


def _swept(settings: Sequence[str]) -> list[str]:
    """The last words of the keys that have several values, as far as a name takes them."""
    keys = [key for key, _, value in (word.partition("=") for word in settings) if re.search(r"[,(]", value)]
    return [re.sub(r"\W+", "_", key.rpartition(".")[2]).strip("_") for key in keys][:MOST_KEYS]
