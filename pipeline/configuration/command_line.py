"""The commands that messages advise, with the settings of the command that was typed."""

import os
import re
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig

from pipeline.configuration.composed import is_multirun
from pipeline.configuration.overridden import BUNDLES, SHAPING

# What prepared data may depend on: their own groups, where they lie, and choices that may set any of these.
PREPARING = ("data", "codec", "paths", "experiment", "cluster", "debug")

OUTPUTS = "paths.outputs"
# What Hydra reads as it stands.
PLAIN = re.compile(r"[\w/.+-]+", re.ASCII)


def command(stage: str, groups: tuple[str, ...]) -> str:
    """The command that runs a stage on the configuration of this one, as far as it lies in some groups.

    Args:
        stage: the module's name, as in `prepare_data`.
        groups: whose overrides are taken along.
    """
    return _command(stage, [override for override in _typed() if _root(override) in groups])


def repeating_command() -> str:
    """The command that trains the same again, or brings back the DVC experiment that has."""
    experiment = os.environ.get("DVC_EXP_NAME")
    return f"dvc exp apply {shlex.quote(experiment)}" if experiment else command("train", (*SHAPING, *BUNDLES))


def next_command(stage: str, outputs: Path) -> str:
    """The command that goes on with what a stage has left in `outputs`, with all that was typed for this one.

    Other data, another store or other settings of what follows would be the usual ones otherwise.
    """
    typed = _typed()
    if not HydraConfig.initialized() or is_multirun():
        # A job has a folder of its own, which nobody typed.
        own = [] if outputs == Path("outputs") else [f"{OUTPUTS}={typable(shown(outputs))}"]
        typed = [*(override for override in typed if override.partition("=")[0] != OUTPUTS), *own]
    return _command(stage, typed)


def shown(folder: Path) -> Path:
    """A folder as one would type it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def typable(value: object) -> str:
    """A value as Hydra takes it: in its quotation marks, unless there is nothing in it that means something else."""
    text = str(value)
    return text if PLAIN.fullmatch(text) else '"' + text.replace('"', '\\"') + '"'


def preparing_command() -> str:
    """The command that prepares the data which this configuration asks for."""
    return command("prepare_data", PREPARING)


def _command(stage: str, overrides: Sequence[str]) -> str:
    """The command that runs a stage, with these overrides, on the configuration that this process reads."""
    source = _source(HydraConfig.get()) if HydraConfig.initialized() else []
    return shlex.join(["python", "-m", f"pipeline.{stage}", *source, *overrides])


def _typed() -> list[str]:
    """The overrides of this command; of a job of a multirun those that it has been given too."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _source(hydra: HydraConf) -> list[str]:
    """Where the configuration is read from, unless it is the usual place.

    That of a command of its own, as conf/compare.yaml, is the usual one, and a few keys that no other command reads.
    """
    name = str(hydra.job.config_name)
    if name == "config" or find_spec(f"pipeline.{name}") is not None:
        return []
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    places = ["." if Path(folder) == Path.cwd() else folder for folder in folders]
    return [word for place in places for word in ("--config-dir", place)] + ["--config-name", name]


def _root(override: str) -> str:
    """The group that an override belongs to: `data` of `+data.root=…`, `data@here=…` and `~data`."""
    return re.split(r"[.@=/]", override.lstrip("+~"), maxsplit=1)[0]
