"""Hydra's and OmegaConf's errors, in a sentence each that names the setting and what is near."""

import re
from collections.abc import Mapping

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from pipeline.configuration.settings import near_matches
from pipeline.entry.frames import innermost

GIVEN_TWICE = re.compile(r"already at '(?P<key>[^']+)'")
AMBIGUOUS = re.compile(r"Ambiguous value for argument '(?P<override>.+)'$", re.MULTILINE)
# Conf files that begin so are parts of others, and no choices.
PART = "_"


def composition_sentence(error: BaseException) -> str | None:
    """What went wrong in composing the configuration; None when the error is of another kind."""
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has to be given: add {error.full_key}=…"
    if isinstance(error, MissingConfigException):
        return _of_missing_file(error)
    if isinstance(error, OverrideParseException):
        return (
            f"`{error.override}` cannot be read: a setting is typed as key=value, and a value with spaces, commas or "
            "brackets in quotes, as 'key=\"a value\"'."
        )
    if isinstance(error, ConfigCompositionException):
        return _of_composition(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return f"{_first_line(error)}."
    if isinstance(error, ValueError) and _module_of(error).startswith("hydra."):
        return f"The settings cannot be composed: {_first_line(error)}."
    return None


def refuse_parts(choices: Mapping[str, str | None]) -> None:
    """Refuse files of conf/ that are only there for others to be made of.

    Raises:
        ValueError: naming the group, and a way to its choices.
    """
    for group, choice in choices.items():
        if choice is not None and choice.rpartition("/")[2].startswith(PART):
            raise ValueError(f"{group}={choice} is a part that other files under conf/{group} share, and no choice.")


def _of_missing_file(error: MissingConfigException) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    options = [option for option in error.options or () if not option.startswith(PART)]
    if group and options:
        return f"{group}={choice} is not a choice; {near_matches(choice, options)}"
    return f"{_first_line(error)}."


def _of_composition(error: ConfigCompositionException) -> str:
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        parent = cause.parent_node
        known = [str(key) for key in parent] if isinstance(parent, DictConfig) and parent else []
        known = [key for key in known if key != "hydra"]
        hint = f"; {near_matches(cause.key, known)}" if known else "."
        return f"{cause.full_key or cause.key} is not a setting{hint}"
    if twice := GIVEN_TWICE.search(str(error)):
        return f"{twice['key']} is there already; set it without the leading +."
    if listed := AMBIGUOUS.match(str(error)):
        return (
            f"`{listed['override']}` lists values; add -m for a job with each, or put a value with commas in quotes, "
            "as 'key=\"a,b\"'."
        )
    return f"{_first_line(error)}."


def _module_of(error: BaseException) -> str:
    """The module that raised an error."""
    frame = innermost(error.__traceback__)
    return "" if frame is None else str(frame.tb_frame.f_globals.get("__name__", ""))


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(". ") if str(error).strip() else type(error).__name__
