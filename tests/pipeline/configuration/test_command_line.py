"""Commands that messages advise."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from pipeline.configuration.command_line import preparing_command
from pipeline.configuration.composed import CONF

OWN = [path.stem for path in sorted(CONF.glob("*.yaml")) if path.stem != "config"]


@pytest.fixture
def composed_as():
    """Compose the configuration of a command, as Hydra does for it."""

    def compose_as(name: str, folder: Path = CONF) -> None:
        with initialize_config_dir(str(folder), version_base=None):
            HydraConfig.instance().set_config(
                compose(name, overrides=["data.seed=2", "trainer.max_steps=3"], return_hydra_config=True)
            )

    yield compose_as
    HydraConfig.instance().cfg = None


@pytest.mark.parametrize("name", OWN)
def test_advice_does_not_name_the_configuration_of_the_command_that_gives_it(name, composed_as) -> None:
    composed_as(name)
    assert preparing_command() == "python -m pipeline.prepare_data data.seed=2"
