from dataclasses import replace

import pytest

from lightning_modules.model.objective import ObjectiveConfig
from pipeline.architecture.subject import Subject


@pytest.fixture(scope="session")
def examine_subject(tiny_config):
    """A subject of the tiny decoder with some fields changed."""

    def build(bias_update_speed: float = 1e-3, **changes) -> Subject:
        return Subject(replace(tiny_config, **changes), ObjectiveConfig(1.0, 0.3, bias_update_speed, 1e-4))

    return build
