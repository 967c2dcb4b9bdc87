"""What the parts of an evaluation find, and how it becomes files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pipeline.plumbing.files import atomic_write, write_csv, write_json

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Findings:
    """What a part finds; files by the name they have in the evaluation's folder.

    Attributes:
        metrics: flat figures, by the name they are logged under.
        tables: rows of CSV files; of the columns of an empty table nothing is known.
        documents: contents of JSON files.
        arrays: contents of safetensors files, by the name of the tensor.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, Rows] = field(default_factory=dict)
    documents: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files."""
        return (*self.tables, *self.documents, *self.arrays)

    def write_files(self, folder: Path) -> None:
        """Write everything but the metrics into `folder`; tables and tensors of an earlier evaluation give way."""
        for kind in ("*.csv", "*.safetensors"):
            for path in folder.glob(kind):
                if path.name not in self.files:
                    path.unlink()
        for name, rows in self.tables.items():
            write_csv(folder / name, rows)
        for name, content in self.documents.items():
            write_json(folder / name, content)
        for name, tensors in self.arrays.items():
            with atomic_write(folder / name) as temporary:
                save_file(dict(tensors), temporary)


def merge(parts: Iterable[Findings]) -> Findings:
    """The findings of all parts together.

    Raises:
        ValueError: two parts claim one name.
    """
    merged: dict[str, dict[str, Any]] = {f.name: {} for f in fields(Findings)}
    for part in parts:
        for kind, found in merged.items():
            own = getattr(part, kind)
            if twice := sorted(found.keys() & own.keys()):
                raise ValueError(f"Two parts of the evaluation write {twice[0]}; give one of them another name.")
            found.update(own)
    return Findings(**merged)
