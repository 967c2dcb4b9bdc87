"""From the composed configuration to the model that is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import lightning
import pytest
import torch
from omegaconf import OmegaConf

from lightning_modules.configuration import TrainerConfig
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.yarn import YarnConfig
from pipeline.configuration.composed import CONF
from pipeline.configuration.settings import read_settings
from pipeline.configuration.strategy import read_strategy
from pipeline.training.model import begin_with, build_model

VOCABULARY = 1032


@pytest.fixture
def build() -> Callable[..., LanguageModel]:
    def from_overrides(*overrides: str) -> LanguageModel:
        with hydra.initialize_config_dir(str(CONF), version_base=None):
            values: Any = OmegaConf.to_container(hydra.compose("config", ["model=tiny", *overrides]), resolve=True)
        trainer = read_settings(TrainerConfig, values["trainer"], "trainer")
        return build_model(values, VOCABULARY, trainer, read_strategy(values["strategy"]))

    return from_overrides


def test_a_model_is_built_as_configured(build: Callable[..., LanguageModel]) -> None:
    model = build(
        "model.rope_scaling={factor: 40, original_max_position_embeddings: 4096}",
        "model.objective.mtp_weights=[0.2]",
        "model.num_expert_segments=4",
        "model.expert_segment_sizes=[8,8,8,8]",
        "trainer.recompute=activations",
    )
    config = model.decoder.config
    assert config.vocab_size == VOCABULARY
    assert config.rope_scaling == YarnConfig(40, 4096)
    assert config.segment_sizes == (8, 8, 8, 8)
    assert model.objective.mtp_weights == (0.2,)
    assert model.decoder.recompute == "activations"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.vocab_size=1000",
            "model.vocab_size is 1000, but the codec.s tokens need 1032; raise it, or set it to",
        ),
        ("model.num_experts_per_tok=3", "the 1 kept groups hold 2 experts; lower it"),
        ("model.rope_scaling={factor: 40}", "model.rope_scaling.original_max_position_embeddings is not set"),
        ("model.rope_scaling={factr: 40}", "model.rope_scaling.factr is not a setting; did you mean `factor`"),
        ("model.rope_scaling=40", "model.rope_scaling is 40; it takes"),
        ("model.objective.mtp_weights=[0.3,0.1]", "mtp_weights holds 2 weights, but .* is 1; give one for each"),
        ("model.expert_segment_sizes=[8,8]", "expert_segment_sizes is .* as many sizes as model.num_expert_segments"),
        ("trainer.ema_decay=1.0", "trainer.ema_decay is 1.0; it must lie between 0 and 1"),
    ],
)
def test_a_bad_configuration_is_refused_before_anything_runs(
    build: Callable[..., LanguageModel], override: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(override)


def test_a_phase_of_context_extension_begins_with_the_weights_of_the_one_before(
    build: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    def save(model: LanguageModel, name: str) -> Path:
        trainer = lightning.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False
        )
        trainer.strategy.connect(model)
        trainer.save_checkpoint(tmp_path / name, weights_only=True)
        return tmp_path / name

    before = build()
    first = build("experiment=context_32k", "trainer.start_from=x")
    assert first.decoder.config.rope_scaling == YarnConfig(40, 4096)
    begin_with(first, save(before, "pretrained.ckpt"))
    second = build("experiment=context_128k", "trainer.start_from=x")
    begin_with(second, save(first, "first.ckpt"))
    for name, tensor in before.decoder.state_dict().items():
        assert torch.equal(second.decoder.state_dict()[name], tensor), name
    with pytest.raises(ValueError, match="first.ckpt holds a model with another hidden_size; set model"):
        begin_with(build("model.hidden_size=128"), tmp_path / "first.ckpt")
