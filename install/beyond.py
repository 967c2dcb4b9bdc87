"""Print what one lock pins and another does not: `python install/beyond.py requirements.lock everything.lock`.

What an optional extra needs beside what is installed anyway becomes a lock of its own, so that nobody who does not want
it waits for it. Needs no package.
"""

import re
import sys
from pathlib import Path


def entries(lock: str) -> dict[str, str]:
    """The lines of each pin with its hashes, by its requirement: a name, a version, and where it applies."""
    found = re.findall(r"^\S.*(?:\n[ \t].*)*\n?", lock, flags=re.MULTILINE)
    return {entry.splitlines()[0].removesuffix(" \\"): entry for entry in found}


def beyond(lock: str, everything: str) -> str:
    """The pins of `everything` that `lock` has not.

    Raises:
        ValueError: one of them is of a package that `lock` has in another version: both cannot be installed.
    """
    known = entries(lock)
    names = {requirement.partition("==")[0] for requirement in known}
    added = {requirement: entry for requirement, entry in entries(everything).items() if requirement not in known}
    if twice := [requirement for requirement in added if requirement.partition("==")[0] in names]:
        raise ValueError(f"{twice[0]} is another version than the lock's; make the lock anew first (make lock).")
    return "".join(added.values())


if __name__ == "__main__":
    print(beyond(*(Path(name).read_text(encoding="utf-8") for name in sys.argv[1:])), end="")
