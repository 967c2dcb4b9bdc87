import json
from collections.abc import Callable
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf

from pipeline.configuration.composed import CONF
from pipeline.planning.composed import planned
from tests.pipeline.conftest import Told


def composed(*overrides: str) -> dict[str, Any]:
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        values = OmegaConf.to_container(hydra.compose("plan", list(overrides)), resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def test_the_command_prints_one_json_object(typed: Callable[..., Told]):
    overrides = ["model=tiny", "nodes=2", "gpus_per_node=4", "strategy.ep=2", "precision=fp8_deepseek", "output=json"]
    status, output, told = typed("plan", *overrides)
    assert status == 0, told
    report = json.loads(output)
    assert report["layout"]["world_size"] == 8
    assert report["layout"]["dp_shard"] == 4
    assert report["parameters"]["local"] == pytest.approx(report["parameters"]["trained"] / 8, rel=0.05)
    assert report["fits"]
    assert report["recommended"]["fits"]
    memory = report["memory"]
    assert memory["total_gib"] >= memory["parameters_gib"] + memory["activations_gib"] + memory["context_gib"]
    assert report["communication"]["all_to_all_bytes"]["total"] > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strategy=single_device"], "add strategy=expert_parallel"),
        (["strategy.ep=3"], r"strategy.ep \(3\) = 3 does not divide the 8 ranks"),
        (["strategy.ep=8"], r"model.n_routed_experts \(4\) does not divide over strategy.ep \(8\)"),
        (["gpu.memory_gib=-1"], "gpu.memory_gib is -1"),
        (["gpu.attention=fastest"], "gpu.attention is 'fastest'; choose one of"),
        (["trainer.batch_size=0"], "trainer.batch_size is 0"),
        (
            ["strategy.cp=4", "trainer.sequence_length=100"],
            r"\(100\) does not divide over 2 × strategy.cp",
        ),
    ],
)
def test_what_cannot_be_is_named(overrides, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        planned(composed("model=tiny", *overrides), tmp_path)


def test_an_unknown_gpu_is_refused_with_those_there_are():
    with pytest.raises(hydra.errors.MissingConfigException, match="h200"):
        composed("gpu=abacus")
