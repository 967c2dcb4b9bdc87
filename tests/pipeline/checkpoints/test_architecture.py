from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.model.yarn import YarnConfig
from pipeline.checkpoints.architecture import read_architecture
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError
from tests.conftest import TINY

PATH = Path("config.json")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rope_scaling": asdict(YarnConfig(40, 16)), "max_position_embeddings": 160},
        {"rope_theta": 10_000, "q_lora_rank": None},
        {"num_expert_segments": 2, "expert_segment_sizes": [8, 8]},
    ],
)
def test_plain_values_make_the_architecture(changes: dict[str, Any]) -> None:
    config = read_architecture(asdict(TINY) | changes, PATH)
    assert read_architecture(asdict(config), PATH) == config
    assert config.hidden_size == TINY.hidden_size


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 32.0},
        {"norm_topk_prob": 1},
        {"q_lora_rank": "16"},
        {"rope_scaling": {"factor": "40", "original_max_position_embeddings": 16}},
        {"rope_scaling": {"factor": 40, "original_max_position_embeddings": 16, "beta": 1}},
        {"rope_scaling": {"factor": 40}},
        {"expert_segment_sizes": [8.0, 8]},
        {"rms_norm_eps": float("nan")},
        {"hidden_size": 2**39, "vocab_size": 2**39},
        {"colour": "red"},
    ],
)
def test_values_that_no_decoder_has_are_refused_naming_the_file(changes: dict[str, Any]) -> None:
    with pytest.raises(DamagedCheckpointError, match=r"^config\.json"):
        read_architecture(asdict(TINY) | changes, PATH)


@pytest.mark.parametrize("values", [None, [], "x", {}])
def test_what_tells_nothing_is_refused(values: object) -> None:
    with pytest.raises(DamagedCheckpointError, match=r"^config\.json describes no decoder"):
        read_architecture(values, PATH)
