"""What a configuration sets otherwise than conf/ does."""

from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf

from pipeline.configuration.composed import CONF
from pipeline.configuration.overridden import differences, shaping


def compose(*overrides: str) -> dict[str, Any]:
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        values = OmegaConf.to_container(hydra.compose("config", list(overrides)), resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["seed=2"],
        ["model=tiny", "optimizer.lr=0.001"],
        ["precision=bf16", "trainer.max_steps=7"],
        ["model.num_hidden_layers=6", "data=fsdd"],
        ["tracking=none"],
    ],
)
def test_values_tell_what_was_overridden(overrides):
    expected = {override for override in overrides if not override.startswith("tracking")}
    assert set(differences(compose(*overrides), compose())) == expected


def test_the_most_telling_comes_first_and_what_shapes_no_training_is_left_out():
    typed = [
        "data=fsdd",
        "trainer.max_steps=7",
        "model=tiny",
        "+optimizer.lr=0.001",
        "tracking=none",
        "paths.outputs=x",
    ]
    assert shaping(typed) == ["optimizer.lr=0.001", "tiny", "trainer.max_steps=7", "fsdd"]
