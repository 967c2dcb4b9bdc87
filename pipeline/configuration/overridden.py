"""What a configuration sets otherwise than conf/ does, as one would type it, whichever way it was composed."""

from collections.abc import Iterable, Mapping
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.configuration.composed import CONF
from pipeline.plumbing.nested import leaves

# Groups that shape a training, and choices that set any of them.
SHAPING = ("model", "optimizer", "schedule", "trainer", "feed", "precision", "strategy", "data", "codec", "seed")
BUNDLES = ("experiment", "cluster", "debug")
# A value that has to be given.
OPEN = "???"


def overridden(values: Mapping[str, Any]) -> list[str]:
    """The settings of a training that are not the default's: `key=value`, the name alone for the choice of a group.

    Typed ones in the order they were typed. params.yaml does not say what was typed (DVC composes it): its values are
    held against conf/.

    Args:
        values: the composed configuration.
    """
    hydra_config = HydraConfig.get()
    if hydra_config.job.config_name == "config":
        return shaping(hydra_config.overrides.task)
    return shaping(differences(values, _default()))


def shaping(overrides: Iterable[str]) -> list[str]:
    """Those of Hydra's overrides that shape a training, the most telling first, choices of groups by name alone."""
    chosen = [override for override in overrides if _root(override) in (*SHAPING, *BUNDLES)]
    return [_short(override) for override in sorted(chosen, key=_turn)]


def differences(values: Mapping[str, Any], default: Mapping[str, Any]) -> list[str]:
    """What `values` set otherwise than `default`, as overrides: of a group its nearest choice, and what remains."""
    found = []
    for group in SHAPING:
        if values[group] == default[group]:
            continue
        if not isinstance(values[group], Mapping):
            found.append(f"{group}={values[group]}")
            continue
        name, changed = _nearest(group, values[group], default[group])
        found += [*([f"{group}={name}"] if name else []), *(f"{group}.{key}={value}" for key, value in changed.items())]
    return found


def _nearest(group: str, values: Mapping[str, Any], default: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The choice of a group from which the fewest settings differ, "" for the default one, and these settings."""
    choices = {path.stem: _choice(group, path.stem) for path in sorted((CONF / group).glob("[!_]*.yaml"))}
    candidates = [("", _changed(values, default))]
    candidates += [(name, _changed(values, choice)) for name, choice in choices.items() if choice is not None]
    return min(candidates, key=lambda candidate: len(candidate[1]))


def _changed(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `values` that `others` have otherwise; what these leave open is nobody's deviation."""
    theirs = dict(leaves(others))
    return {key: value for key, value in leaves(values) if theirs.get(key, ...) not in (value, OPEN)}


def _default() -> dict[str, Any]:
    return _plain(_compose("config"))


def _choice(group: str, name: str) -> dict[str, Any] | None:
    """A choice of a group as conf/ composes it; None of one that stands on values of others."""
    config = _compose(f"{group}/{name}")
    try:
        return dict(_plain(config)[group])
    except OmegaConfBaseException:
        return None


def _compose(name: str) -> DictConfig:
    if GlobalHydra.instance().is_initialized():
        return hydra.compose(name)
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        return hydra.compose(name)


def _plain(config: DictConfig) -> dict[str, Any]:
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _root(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].partition(".")[0]


def _turn(override: str) -> int:
    """Settings of the model and of how it learns come first, then choices, the trainer's settings, and the data."""
    if _root(override) in ("data", "codec"):
        return 3
    if _root(override) == "trainer":
        return 2
    return 1 if (CONF / override.lstrip("+").partition("=")[0]).is_dir() else 0


def _short(override: str) -> str:
    key, _, value = override.lstrip("+").partition("=")
    return value if (CONF / key).is_dir() else f"{key}={value}" if value else key
