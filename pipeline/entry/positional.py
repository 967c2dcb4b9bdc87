"""Words on a command line that set nothing: names, which a command takes as a list under one of its keys."""

from collections.abc import Sequence
from pathlib import Path

# Hydra's options that are followed by a word of their own.
TAKING_A_WORD = (
    "--config-path",
    "--config-name",
    "--config-dir",
    "--package",
    "--cfg",
    "-cp",
    "-cn",
    "-cd",
    "-p",
    "-c",
)


def gathered(words: Sequence[str], key: str) -> list[str]:
    """A command line for Hydra: its words, the names among them as one setting `key`.

    A name has no equals sign, unless something that exists is called so: the folder of a sweep's job may be.
    """
    names = [word for before, word in zip(["", *words], words, strict=False) if _is_name(word, before)]
    others = [word for before, word in zip(["", *words], words, strict=False) if not _is_name(word, before)]
    return [*others, f"{key}=[{','.join(map(_quoted, names))}]"] if names else others


def _is_name(word: str, before: str) -> bool:
    if before in TAKING_A_WORD or not word or word[0] in "-+~":
        return False
    return "=" not in word or Path(word).exists()


def _quoted(name: str) -> str:
    """The name in Hydra's quotation marks, between which a comma or a bracket means nothing."""
    return "'" + name.replace("'", "\\'") + "'"
