"""The engine that a configuration names."""

from pathlib import Path

from pipeline.preparation.configuration import PreparationConfig, RayConfig, SlurmArrayConfig
from pipeline.preparation.engines.engine import Engine, LocalEngine, PartEngine


def build_engine(config: PreparationConfig, workers: int | None, cache: Path) -> Engine:
    """The engine that does the steps of a preparation.

    Args:
        config: which.
        workers: processes of this machine, where it does the work; None: one a core.
        cache: where logs of jobs may lie.
    """
    if isinstance(config.engine, RayConfig):
        from pipeline.preparation.engines.ray_cluster import RayEngine

        return RayEngine(config.engine)
    if isinstance(config.engine, SlurmArrayConfig):
        from pipeline.preparation.engines.slurm_array import SlurmArrayEngine

        return SlurmArrayEngine(config.engine, cache / "slurm_array")
    return LocalEngine(workers) if config.part is None else PartEngine(config.part, workers)
