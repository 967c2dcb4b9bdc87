"""From a composed configuration to the dataclasses that the code below the stages understands."""

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

REPOSITORY = Path(__file__).resolve().parents[1]
CONF = REPOSITORY / "conf"

Settings = TypeVar("Settings")


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain dictionaries, interpolations resolved.

    Raises:
        omegaconf.errors.MissingMandatoryValue: naming a value that has to be given, as `data.root` for a folder.
    """
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def settings(cls: type[Settings], values: Mapping[str, Any], key: str) -> Settings:
    """Build the dataclass `cls` from the values found under `key` of the configuration.

    Raises:
        ValueError: naming a field that is missing or unknown, and the one that was probably meant.
    """
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {key}.{near[0]}?" if near else f"it knows {', '.join(names)}."
            raise ValueError(f"{key}.{name} is not a setting; {hint}")
    required = [
        field.name
        for field in fields(cls)  # type: ignore[arg-type]
        if field.default is MISSING and field.default_factory is MISSING
    ]
    missing = [name for name in required if name not in values]
    if missing:
        raise ValueError(f"{key}.{missing[0]} is not set; give it a value in conf/ or on the command line.")
    tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return cls(**tuples)


def outputs_folder(config: DictConfig) -> Path:
    """Where a stage writes: `paths.outputs`, or the job's own folder in a multirun, so that jobs stay apart."""
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is not None and hydra.mode == RunMode.MULTIRUN:
        return Path(hydra.runtime.output_dir)
    return Path(config.paths.outputs)
