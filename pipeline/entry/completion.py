"""What may follow on a command line that is being typed."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.configuration.composed import CONF
from pipeline.entry.help import choices_of, groups_of_conf

# Commands that compose a file of conf/ of their own name.
OWN_CONFIGURATIONS = ("plan", "compliance", "ui", "stream", "serve", "compare")
FLAGS = ("--help", "--multirun", "--cfg", "--traceback")


def completions(line: str, commands: Sequence[str]) -> list[str]:
    """Words that the last one of `line` may become, `melisma` being the first: commands, groups, choices, settings.

    A group ends in `=`, a setting within one is reached step by step: `model=`, `model=tiny`, `optimizer.`,
    `optimizer.lr=`.
    """
    words = _words(line)
    if len(words) < 3:
        return [f"{command} " for command in commands if command.startswith(words[-1] if len(words) == 2 else "")]
    command, typed = words[1].replace("_", "-"), words[-1]
    if typed.startswith("-"):
        return [f"{flag} " for flag in FLAGS if flag.startswith(typed)]
    key, equals, value = typed.partition("=")
    if equals:
        # A sweep's values stand side by side: those before the last comma stay.
        before, _, last = value.rpartition(",")
        before = f"{before}," if before else ""
        return [f"{key}={before}{choice}" for choice in _choices(key) if choice.startswith(last)]
    found = [f"{group}=" for group in groups_of_conf() if group.startswith(typed)]
    settings = _settings(command if command in OWN_CONFIGURATIONS else "config", words[2:-1])
    return sorted({*found, *_next_steps(settings, typed)})


def _words(line: str) -> list[str]:
    """The words of a line, the last of which is being typed and may be empty."""
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    return [*words, ""] if not line or line[-1].isspace() else words


def _choices(group: str) -> list[str]:
    return choices_of(group) if group in groups_of_conf() else []


def _settings(config_name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The settings that the choices typed so far compose to; those of the default where they do not compose."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    chosen = [word for word in overrides if "=" in word and "," not in word]
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        try:
            config = hydra.compose(config_name, chosen)
        except HydraException:
            config = hydra.compose(config_name)
    values = OmegaConf.to_container(config)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _next_steps(values: Mapping[str, Any], typed: str) -> Iterator[str]:
    """Dotted names up to the next dot, or whole ones with `=`."""
    *parents, last = typed.split(".")
    for parent in parents:
        inner = values.get(parent)
        if not isinstance(inner, Mapping):
            return
        values = inner
    for key, value in values.items():
        if str(key).startswith(last):
            yield ".".join([*parents, str(key)]) + ("." if isinstance(value, Mapping) else "=")
