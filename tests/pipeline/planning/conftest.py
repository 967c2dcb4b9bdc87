from dataclasses import replace

import pytest

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from pipeline.planning.settings import GpuConfig, PlannedTraining


@pytest.fixture(scope="session")
def decoder_config(tiny_config) -> DecoderConfig:
    """Sides that divide over a few ranks, and no fewer blocks than a rehearsal leaves out some of."""
    return replace(tiny_config, hidden_size=64, num_hidden_layers=6, first_k_dense_replace=2, moe_intermediate_size=32)


@pytest.fixture(scope="session")
def training(decoder_config) -> PlannedTraining:
    objective = ObjectiveConfig(1.0, 0.3, 1e-3, 1e-4)
    return PlannedTraining(decoder_config, objective, "bf16", batch_size=2, sequence_length=96)


@pytest.fixture(scope="session")
def gpu() -> GpuConfig:
    return GpuConfig("test", memory_gib=80.0)
