"""A value that has to be given stays one, whatever it is merged with."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from pipeline.configuration.composed import CONF, plain

GROUPS = ("data", "codec", "model", "optimizer", "schedule", "trainer", "precision", "strategy", "experiment", "debug")
# As a file says it, and as it says it where a layer below may have a default.
MANDATORY = ("???", "${mandatory:")


def leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict):
        for key, value in values.items():
            if key != "defaults":
                yield from leaves(value, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), values


def options(group: str) -> list[str]:
    return [path.stem for path in sorted((CONF / group).glob("*.yaml")) if not path.stem.startswith("_")]


def mandatory(group: str, option: str) -> list[str]:
    """What a file, or one that it is built on, declares to be given, by its name in the whole configuration."""
    text = (CONF / group / f"{option}.yaml").read_text()
    values = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(values, dict)
    prefix = "" if "@package _global_" in text else f"{group}."
    found = [f"{prefix}{name}" for name, value in leaves(values) if str(value).startswith(MANDATORY)]
    for base in values.get("defaults", ()):
        if isinstance(base, str) and base != "_self_" and (CONF / group / f"{base}.yaml").exists():
            found += mandatory(group, base)
    return found


DECLARED = {
    (group, option): names for group in GROUPS for option in options(group) if (names := mandatory(group, option))
}


def test_mandatory_values_are_found_at_all() -> None:
    assert DECLARED["data", "folder"] == ["data.root"]
    assert DECLARED["experiment", "context_32k"] == DECLARED["experiment", "context_128k"] == ["trainer.start_from"]
    written = sum(any(mark in path.read_text() for mark in ("???", "{mandatory:")) for path in CONF.rglob("*.yaml"))
    assert written == len(DECLARED.keys() - {("experiment", "context_128k")}), "each is looked at here"


@pytest.mark.parametrize(
    ("choice", "others"),
    product(DECLARED, ([], ["debug=smoke"], ["trainer=gpu"])),
    ids=lambda value: "_".join(value) if isinstance(value, tuple | list) else str(value),
)
def test_no_merge_loses_a_mandatory_value(choice: tuple[str, str], others: list[str]) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        config = hydra.compose("config", [*others, "=".join(choice)])
        for name in DECLARED[choice]:
            with pytest.raises(MissingMandatoryValue, match=rf"(?s)Missing mandatory value: .*{name}"):
                plain(config)
            given = hydra.compose("config", [*others, "=".join(choice), f"{name}=given"])
            assert OmegaConf.select(given, name) == "given"
            plain(given)


def test_a_plan_asks_for_no_weights() -> None:
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        assert plain(hydra.compose("plan", ["experiment=context_32k"]))["trainer"]["start_from"] is None
