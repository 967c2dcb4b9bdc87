"""What a command says of itself: what it does, and what can be turned. Read from the files, nothing is composed."""

import inspect
from typing import Any

import yaml

from pipeline.configuration.composed import CONF

OPTIONS = """\
Options:
  key=value          set a value, or choose a file of a group; both as often as wanted
  -m, --multirun     every combination of values with commas, as a job each
  --cfg job          show the configuration that would be used, and do nothing
  --traceback        show where an error came from
  --hydra-help       Hydra's own options"""


def help_text(words: str, groups: tuple[str, ...], config_name: str) -> str:
    """The help of a command: its own words, the groups it goes by with their choices, the options of all.

    Args:
        words: what the command does, and examples.
        groups: of conf/.
        config_name: the file of conf/ whose choices are the default.
    """
    chosen = default_choices(config_name)
    width = max(len(group) for group in groups)
    rows = [
        f"  {group:{width}}  " + "  ".join(f"[{c}]" if c == chosen.get(group) else c for c in choices_of(group))
        for group in groups
    ]
    about = "Groups, each a folder of conf/ and each choice a file; the default stands in brackets:"
    return "\n".join([inspect.cleandoc(words), "", about, *rows, "", OPTIONS])


def choices_of(group: str) -> list[str]:
    """The choices of a group of conf/."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.name.startswith("_"))


def groups_of_conf() -> list[str]:
    """Every group that has a folder."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")


def default_choices(config_name: str) -> dict[str, str | None]:
    """The choice of every group in a file of conf/ and those it builds upon, {group: choice}."""
    entries: list[Any] = yaml.safe_load((CONF / f"{config_name}.yaml").read_text(encoding="utf-8"))["defaults"]
    choices: dict[str, str | None] = {}
    for entry in entries:
        if isinstance(entry, str) and entry != "_self_":
            choices |= default_choices(entry)
        elif isinstance(entry, dict):
            (name, choice), *_ = entry.items()
            choices[name.removeprefix("override ").removeprefix("/")] = choice
    return choices
