"""The jobs of a multirun, and what tells them apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pipeline.configuration.composed import is_multirun
from pipeline.plumbing.files import read_json

# In a sweep's folder: the keys of the overrides that all its jobs share.
SHARED = "shared_overrides.json"


@dataclass(frozen=True)
class MultirunJob:
    """A job of a multirun.

    Attributes:
        overrides: what tells it from the others.
        folder: where its results go.
        sweep: the folder of all jobs.
    """

    overrides: Sequence[str]
    folder: Path
    sweep: Path

    @classmethod
    def of_this_process(cls) -> "MultirunJob | None":
        """The job that this process runs; None: it runs none."""
        if not is_multirun():
            return None
        hydra = HydraConfig.get()
        return cls(own_overrides(hydra), Path(hydra.runtime.output_dir), Path(hydra.sweep.dir))


def own_overrides(hydra: HydraConf | DictConfig) -> list[str]:
    """What tells this job of a multirun from the others: its overrides but for those that all jobs share."""
    path = Path(hydra.sweep.dir, SHARED)
    shared = read_json(path) if path.is_file() else []
    return [o for o in hydra.overrides.task if o.partition("=")[0] not in shared]
