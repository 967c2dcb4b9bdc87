"""The composed configuration, as the stages see it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

from pipeline.configuration import resolvers  # noqa: F401 - known wherever a configuration is composed
from pipeline.tracking.config import anchored

REPOSITORY = Path(__file__).resolve().parents[2]
CONF = REPOSITORY / "conf"


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain dictionaries, interpolations resolved.

    Raises:
        omegaconf.errors.MissingMandatoryValue: naming a value that has to be given, as `data.root` for a folder.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except InterpolationResolutionError as error:
        # OmegaConf keeps nothing of the resolver's own error but its name and message.
        if str(error).startswith(MissingMandatoryValue.__name__):
            raise MissingMandatoryValue(f"Missing mandatory value: {error.full_key}") from None
        raise
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def is_multirun() -> bool:
    """Whether this process runs a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def cache_folder(paths: Mapping[str, str]) -> Path:
    """Where what takes long to make lies for the next time: `paths.cache`, which queued experiments share."""
    return anchored(Path(paths["cache"]), REPOSITORY)


@dataclass(frozen=True)
class Folders:
    """Where a stage reads and writes.

    Attributes:
        training: what a training and the stages after it have left: `paths.outputs`.
        outputs: where this stage writes: the same, or the job's own folder in a multirun, so that jobs stay apart.
    """

    training: Path
    outputs: Path

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Folders":
        """The folders of a stage with this configuration."""
        usual = Path(values["paths"]["outputs"])
        return cls(usual, Path(HydraConfig.get().runtime.output_dir) if is_multirun() else usual)


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
