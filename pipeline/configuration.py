"""The composed configuration, as the stages see it."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

REPOSITORY = Path(__file__).resolve().parents[1]
CONF = REPOSITORY / "conf"


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain dictionaries, interpolations resolved.

    Raises:
        omegaconf.errors.MissingMandatoryValue: naming a value that has to be given, as `data.root` for a folder.
    """
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def outputs_folder(config: DictConfig) -> Path:
    """Where a stage writes: `paths.outputs`, or the job's own folder in a multirun, so that jobs stay apart."""
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is not None and hydra.mode == RunMode.MULTIRUN:
        return Path(hydra.runtime.output_dir)
    return Path(config.paths.outputs)
