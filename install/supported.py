"""Refuse, in one sentence, a Python that the lock has no packages for: `python3 install/supported.py`.

Runs on every Python since 3.6, which is what `python3` still is on some clusters, and needs no package.
"""

import re
import sys
from pathlib import Path

MISCOMPILING = (3, 13, 0)
PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def supported(pyproject: str) -> range:
    """The minor versions of Python 3 that `requires-python` admits."""
    found = re.search(r'^requires-python = ">=3\.(\d+),(?:!=[\d.]+,)*<3\.(\d+)"$', pyproject, flags=re.MULTILINE)
    return range(int(found.group(1)), int(found.group(2)))


def refusal(version: tuple, minors: range) -> str:
    """What to say to somebody with this version (major, minor, micro); empty where it is supported."""
    if version == MISCOMPILING:
        return (
            f"{sys.executable} is Python 3.13.0, on which code that torch compiles goes on with values that have "
            "changed since (python/cpython#125608); install 3.13.1 or newer"
        )
    if version[0] == 3 and version[1] in minors:
        return ""
    return (
        f"Melisma needs Python 3.{minors[0]} to 3.{minors[-1]}, and {sys.executable} is {version[0]}.{version[1]}; "
        "install one of them beside it, and make finds it (or make PYTHON=/path/to/python3)"
    )


if __name__ == "__main__":
    sys.exit(refusal(sys.version_info[:3], supported(PYPROJECT.read_text(encoding="utf-8"))) or None)
