"""The composed configuration, as the stages see it."""

from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

REPOSITORY = Path(__file__).resolve().parents[2]
CONF = REPOSITORY / "conf"


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain dictionaries, interpolations resolved.

    Raises:
        omegaconf.errors.MissingMandatoryValue: naming a value that has to be given, as `data.root` for a folder.
    """
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def is_multirun() -> bool:
    """Whether this process runs a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def outputs_folder(config: DictConfig) -> Path:
    """Where a stage writes: `paths.outputs`, or the job's own folder in a multirun, so that jobs stay apart."""
    return Path(HydraConfig.get().runtime.output_dir) if is_multirun() else Path(config.paths.outputs)


def preset(name: str) -> dict[str, Any]:
    """One choice of the group `model`, as conf/ composes it."""
    if GlobalHydra.instance().is_initialized():
        config = hydra.compose(f"model/{name}")
    else:
        with hydra.initialize_config_dir(str(CONF), version_base=None):
            config = hydra.compose(f"model/{name}")
    values = OmegaConf.to_container(config.model, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
