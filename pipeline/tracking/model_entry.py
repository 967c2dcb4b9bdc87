"""A model as a stage tells the store of it. Light: needs no MLflow."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.tracking.config import REFERENCE
from pipeline.tracking.names import SEPARATOR

EXPORT, CHECKPOINT = "export", "checkpoint"
# What MLflow allows in no model's name.
_FORBIDDEN = re.compile(r"[/:.%\"']")


@dataclass(frozen=True)
class ModelEntry:
    """A model that a run has made.

    Attributes:
        kind: `export` or `checkpoint`.
        name: of the model among those of its run, as in `step 900`.
        digest: what tells it from others: telling the store twice makes one model.
        path: where it lies; None: it is no longer kept.
        keep: what the store keeps of an export: `copy` or `reference`.
        step: the optimizer steps behind it.
        tags: further facts.
        metrics: measured on `dataset`.
        dataset: name and digest of the data that the metrics are of.
        home: where it will lie for good: a queued experiment's own folder vanishes. None: at `path`.
    """

    kind: str
    name: str
    digest: str
    path: Path | None
    keep: str = REFERENCE
    step: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    dataset: tuple[str, str] | None = None
    home: Path | None = None

    def to_values(self) -> dict[str, Any]:
        """As a record holds it: JSON."""
        places = {"path": self.path, "home": self.home or self.path}
        return {**asdict(self), **{name: place and str(place.resolve()) for name, place in places.items()}}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "ModelEntry":
        """Read what `to_values` gave."""
        dataset = values["dataset"]
        places = {name: values.get(name) and Path(values[name]) for name in ("path", "home")}
        return cls(**{**values, **places, "dataset": dataset and (dataset[0], dataset[1])})


def model_name(run_name: str, name: str) -> str:
    """The name of a model in the store: its own, then the beginning of its run's."""
    return _FORBIDDEN.sub("_", f"{name} {run_name.partition(SEPARATOR)[0]}")
