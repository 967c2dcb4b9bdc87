"""The group `preparation`: what it takes, and how it refuses the rest."""

from collections.abc import Callable
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf

from pipeline.configuration.composed import CONF
from pipeline.preparation.configuration import LocalConfig, RayConfig, SlurmArrayConfig, read_preparation


@pytest.fixture
def group() -> Callable[..., dict[str, Any]]:
    def compose(*overrides: str) -> dict[str, Any]:
        with hydra.initialize_config_dir(str(CONF), version_base=None):
            config = hydra.compose("config", list(overrides))
        values: Any = OmegaConf.to_container(config.preparation, resolve=True)
        return values

    return compose


@pytest.mark.parametrize(
    ("name", "kind"), [("local", LocalConfig), ("ray", RayConfig), ("slurm_array", SlurmArrayConfig)]
)
def test_every_engine_has_its_file(group, name: str, kind: type) -> None:
    read = read_preparation(group(f"preparation={name}"))
    assert isinstance(read.engine, kind)
    assert (read.step, read.part) == ("all", None)


def test_a_part_of_a_step(group) -> None:
    read = read_preparation(group("preparation.step=encode", "preparation.shard=3/16"))
    assert (read.step, read.part) == ("encode", (3, 16))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["preparation.step=encod"], "preparation.step is 'encod'; did you mean `encode`"),
        (["preparation.step=encode", "preparation.shard=0/2"], "preparation.shard is '0/2'; give k/n"),
        (["preparation.step=encode", "preparation.shard=3/2"], "preparation.shard is '3/2'; give k/n"),
        (["preparation.step=encode", "preparation.shard=3"], "preparation.shard is 3; give k/n"),
        (["preparation.shard=1/2"], "needs a step that has parts; known are `inspect`, `encode_long`, `encode`"),
        (["preparation=ray", "preparation.step=encode", "preparation.shard=1/2"], "leave preparation=ray out"),
        (["preparation=ray", "preparation.cpus=0"], "preparation.cpus is 0"),
        (["preparation=ray", "preparation.retries=-1"], "preparation.retries is -1"),
        (["preparation=slurm_array", "preparation.executor=pbs"], "preparation.executor is 'pbs'"),
        (["preparation=slurm_array", "preparation.tasks=0"], "preparation.tasks is 0; it must be above 0"),
        (["preparation=slurm_array", "preparation.parameters=3"], "preparation.parameters is 3; give a mapping"),
        (["+preparation.workers=3"], "preparation.workers is not a setting"),
        (["preparation.kind=spark"], "preparation.kind is 'spark'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(group, overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_preparation(group(*overrides))
