"""Commands that messages advise."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser

from pipeline.configuration.command_line import next_command, preparing_command, typable
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


@pytest.mark.parametrize(
    ("mode", "outputs", "command"),
    [
        ("RUN", "out", "python -m pipeline.evaluate paths.prepared=data/own paths.outputs=out debug=smoke"),
        (
            "MULTIRUN",
            "multirun/0",
            "python -m pipeline.evaluate paths.prepared=data/own debug=smoke paths.outputs=multirun/0",
        ),
    ],
)
def test_the_next_stage_goes_by_what_was_typed_for_this_one(mode, outputs, command) -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose(
            "config", ["paths.prepared=data/own", "paths.outputs=out", "debug=smoke"], return_hydra_config=True
        )
    config.hydra.mode = mode
    HydraConfig.instance().set_config(config)
    try:
        assert next_command("evaluate", Path(outputs)) == command
    finally:
        HydraConfig.instance().cfg = None


@pytest.mark.parametrize("path", ["out/a", "/home/Jürgen/my runs/0", "a,b", "it's", 'say "so"', "{x}[y](z)", "lr=1e-3"])
def test_hydra_reads_a_path_that_is_advised(path: str) -> None:
    assert OverridesParser.create().parse_override(f"paths.outputs={typable(path)}").value() == path
    assert (typable(path) == path) == (path == "out/a"), "quotation marks only where they are needed"


@pytest.mark.parametrize(("outputs", "words"), [("outputs", ""), ("out", " paths.outputs=out")])
def test_without_a_command_line_the_next_stage_is_told_the_folder_alone(outputs, words) -> None:
    assert next_command("report", Path(outputs)) == f"python -m pipeline.report{words}"
