import gc
import importlib.util
import os
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder

TESTS = Path(__file__).parent
REPOSITORY = TESTS.parent

# The files that take more than ten seconds.
LONGEST_FIRST = (
    "pipeline/test_pipeline.py",
    "lightning_modules/parallel/test_strategy.py",
    "lightning_modules/parallel/test_checkpoint_layouts.py",
    "pipeline/planning/test_sweep.py",
    "pipeline/test_train_ranks.py",
    "pipeline/planning/test_rehearsal.py",
    "pipeline/test_convert_checkpoint.py",
    "pipeline/test_plan.py",
    "pipeline/checkpoints/malformed/test_malformed.py",
    "pipeline/tracking/test_replay.py",
    "drills/interrupted/test_interrupted.py",
    "lightning_modules/parallel/test_all_gather.py",
    "lightning_modules/callbacks/test_anomaly.py",
    "lightning_modules/parallel/test_heartbeat.py",
    "pipeline/comparison/test_command.py",
    "pipeline/tracking/test_leftovers.py",
    "lightning_modules/test_training.py",
    "pipeline/checkpoints/published/test_release.py",
    "pipeline/checkpoints/test_round_trips.py",
    "pipeline/test_stream.py",
    "test_extending.py",
    "lightning_modules/parallel/test_precisions.py",
    "pipeline/entry/test_command.py",
    "pipeline/serving/test_server.py",
)

TINY = DecoderConfig(
    vocab_size=40,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    q_lora_rank=16,
    kv_lora_rank=12,
    qk_nope_head_dim=8,
    qk_rope_head_dim=4,
    v_head_dim=12,
    intermediate_size=48,
    moe_intermediate_size=16,
    first_k_dense_replace=1,
    n_routed_experts=8,
    n_shared_experts=1,
    num_experts_per_tok=2,
    n_group=4,
    topk_group=2,
    scoring_func="sigmoid",
    norm_topk_prob=True,
    routed_scaling_factor=2.5,
    rope_theta=10000.0,
    rms_norm_eps=1e-6,
    max_position_embeddings=256,
    tie_word_embeddings=False,
    initializer_range=0.2,
    num_nextn_predict_layers=1,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no process is left alone with one of them at the end."""
    places = {TESTS / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Spare the garbage collector what modules hold, millions of objects: a fifth of collecting, a tenth of testing."""
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    return result


@pytest.fixture(scope="session")
def fsdd_root() -> Path:
    """The Free Spoken Digit Dataset: real human speech, used where it lies beside the checkout."""
    root = Path(os.environ.get("FSDD_ROOT", REPOSITORY.parent / "shared" / "data" / "fsdd"))
    if not (root / "recordings").is_dir():
        pytest.skip("the FSDD recordings are not on this machine (set FSDD_ROOT)")
    return root


@pytest.fixture(scope="session")
def espeak_available() -> None:
    if importlib.util.find_spec("espeakng_loader") is None:
        pytest.skip("espeakng-loader is not installed")


@pytest.fixture(scope="session")
def tiny_config() -> DecoderConfig:
    return TINY


@pytest.fixture(scope="session")
def build_decoder():
    """Build a decoder with every weight and bias away from its starting value."""

    def build(**changes: Any) -> Decoder:
        torch.manual_seed(0)
        decoder = Decoder(replace(TINY, **changes)).eval()
        decoder.initialize_weights()
        with torch.no_grad():
            for router in decoder.routers():
                router.e_score_correction_bias.uniform_(-0.3, 0.3)
            for name, parameter in decoder.named_parameters():
                if "norm" in name:
                    parameter.uniform_(0.5, 1.5)
        return decoder

    return build
