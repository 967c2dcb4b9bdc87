"""Small files of text, planned like the large ones of tensors."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.checkpoints.writing.plan import PlannedFile


def json_file(name: str, value: Any) -> PlannedFile:
    """Plan a file of indented JSON."""
    return PlannedFile(name, 0, partial(_write, json.dumps(value, indent=2) + "\n"))


def _write(text: str, path: Path, advance: Callable[[int], None]) -> None:
    path.write_text(text, encoding="utf-8")
