import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf

from pipeline.configuration.composed import CONF
from pipeline.configuration.settings import read_settings
from pipeline.configuration.strategy import read_strategy
from pipeline.planning.composed import planned, read_training
from pipeline.planning.memory import GIB, step_memory
from pipeline.planning.rehearsals import Rehearsals
from pipeline.planning.settings import GpuConfig, Layout
from pipeline.planning.sweep import sweep
from tests.conftest import REPOSITORY
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
        (["trainer.global_batch=0"], "trainer.global_batch is 0"),
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


def test_the_documented_plan_of_the_whole_model_holds(tmp_path):
    """Of the recommended layout by name: sweeping all of them takes a minute."""
    page = (REPOSITORY / "docs" / "parallelism.md").read_text()
    command = re.search(r"^python -m pipeline.plan (model=deepseek_v3 .*) plan=best (.*)$", page, re.MULTILINE)
    recommended = re.search(r"^Recommended: (.*)$", page, re.MULTILINE)
    assert command is not None
    assert recommended is not None
    values = composed(*" ".join([*command.groups(), *recommended.groups()]).split())
    strategy = read_strategy(values["strategy"])
    layout, gpu = Layout.of(strategy), read_settings(GpuConfig, values["gpu"], "gpu")
    training = replace(read_training(values, tmp_path), accelerator="gpu").over(layout)
    assert training.accumulate_grad_batches == values["trainer"]["accumulate_grad_batches"] == 15
    best, _ = sweep(training, gpu, [layout], Rehearsals(gpu), strategy.dispatch)
    by_name = step_memory(training, layout, gpu, Rehearsals(gpu).of(training, layout))
    assert (best.fits, best.recompute, best.reduce_every_micro_batch) == (True, "none", True)
    assert best.total == by_name.total
    assert f"That is {by_name.total / GIB:.1f} GiB" in page
