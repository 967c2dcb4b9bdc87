"""What config.json says of positions: every key against the logits that transformers computes of the same weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.yarn import YarnConfig
from pipeline.checkpoints.layouts.huggingface_config import read_config
from pipeline.checkpoints.loading import load_decoder
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError
from pipeline.plumbing.files import read_json, write_json

transformers = pytest.importorskip("transformers")
FACTOR = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 64}
# What is left of a set of keys is what exporters leave out.
TABLE: dict[str, dict[str, Any]] = {
    "as DeepSeek published it": {**FACTOR, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
    "the least": FACTOR,
    "mscale of 1 alone": {**FACTOR, "mscale": 1.0},
    "mscale_all_dim of 0": {**FACTOR, "mscale": 1.0, "mscale_all_dim": 0},
    "mscale_all_dim of 0 alone": {**FACTOR, "mscale_all_dim": 0.0},
    "both, unlike": {**FACTOR, "mscale": 0.707, "mscale_all_dim": 1.0},
    "beta_fast": {**FACTOR, "beta_fast": 2},
    "beta_slow": {**FACTOR, "beta_slow": 0.25},
    "a ramp without length, as kimi_k2's": {**FACTOR, "beta_fast": 1.0, "beta_slow": 1.0},
    "a ramp without whole ends": {**FACTOR, "beta_fast": 2, "truncate": False},
    "whole ends, said": {**FACTOR, "beta_fast": 2, "truncate": True},
    "attention_factor": {**FACTOR, "attention_factor": 0.6},
    "attention_factor beside both": {**FACTOR, "attention_factor": 1.7, "mscale": 1.0, "mscale_all_dim": 1.0},
    "attention_factor beside mscale alone": {**FACTOR, "attention_factor": 1.7, "mscale": 0.5},
    "attention_factor of null": {**FACTOR, "attention_factor": None},
    "the newer name of the type": {"rope_type": "yarn", "factor": 40, "original_max_position_embeddings": 64},
    "both names of the type": {**FACTOR, "rope_type": "yarn"},
    "theta within": {**FACTOR, "rope_theta": 500.0},
    "partial_rotary_factor of 1": {**FACTOR, "partial_rotary_factor": 1.0},
    "another factor": {"type": "yarn", "factor": 10, "original_max_position_embeddings": 16},
    "no scaling": {"type": "default"},
}
# Nobody can tell which of the two codes the weights were trained with; or the decoder cannot compute it.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "mscale alone": (
        {**FACTOR, "mscale": 0.707},
        r"read rope_scaling\.mscale and mscale_all_dim differently.*1\.2.*1\.3",
    ),
    "mscale_all_dim alone": ({**FACTOR, "mscale_all_dim": 1.0}, "add the one .* as attention_factor"),
    "mscale of 0": ({**FACTOR, "mscale": 0, "mscale_all_dim": 1.0}, "read .* differently"),
    "no context before": ({"type": "yarn", "factor": 40}, "lacks original_max_position_embeddings, .* 4096 and .* 160"),
    "no factor": ({"type": "yarn", "original_max_position_embeddings": 64}, "lacks its factor"),
    "a key that is unknown": (
        {**FACTOR, "long_factor": [1.0]},
        "of the type 'yarn' has long_factor, which the decoder",
    ),
    "a part of the head": ({**FACTOR, "partial_rotary_factor": 0.5}, "has partial_rotary_factor"),
    "a factor without a type": ({"factor": 40.0}, "of the type 'default' has factor"),
    "two types": ({**FACTOR, "rope_type": "linear"}, "of two types, linear and yarn"),
    "another type": ({"type": "longrope"}, "scales positions by 'longrope'; only 'yarn' is known"),
    "text": ({**FACTOR, "mscale": "1.0"}, r"rope_scaling\.mscale is '1\.0', which it cannot be"),
    "a negative scale": ({**FACTOR, "mscale": -1.0, "mscale_all_dim": 1.0}, "must not be negative"),
}
LONGEST = 160


@pytest.fixture(scope="module")
def decoder(build_decoder) -> Decoder:
    return build_decoder(
        max_position_embeddings=LONGEST, num_nextn_predict_layers=0, initializer_range=0.25, qk_rope_head_dim=16
    )


@pytest.fixture(scope="module")
def export(decoder: Decoder, save_training, convert_path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rope")
    source = save_training(folder / "trained.ckpt", decoder.config, decoder.state_dict())
    convert_path(source, folder / "export", "huggingface", shard_bytes=2**30)
    return folder / "export"


def tell(export: Path, scaling: dict[str, Any], key: str = "rope_scaling") -> None:
    """Let config.json tell positions by `key` alone."""
    values = read_json(export / "config.json")
    for name in ("rope_scaling", "rope_parameters", "rope_theta"):
        values.pop(name, None)
    theta = {} if "rope_theta" in scaling else {"rope_theta": 10000.0}
    values |= {key: scaling | theta} if key == "rope_parameters" else {key: scaling} | theta
    write_json(export / "config.json", values)


@torch.no_grad()
def both_logits(export: Path) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(0, 40, (2, 100), generator=torch.Generator().manual_seed(0))
    model = transformers.DeepseekV3ForCausalLM.from_pretrained(export).eval()
    return load_decoder(export).next_token_logits(tokens)[0], model(tokens).logits


@pytest.mark.parametrize("scaling", TABLE.values(), ids=TABLE.keys())
def test_every_key_means_what_it_means_to_transformers(export: Path, scaling: dict[str, Any]) -> None:
    tell(export, scaling)
    ours, theirs = both_logits(export)
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5


@pytest.mark.parametrize("scaling", TABLE.values(), ids=TABLE.keys())
def test_the_newer_spelling_means_the_same_to_both(export: Path, scaling: dict[str, Any]) -> None:
    read, theirs = [], []
    for key in ("rope_scaling", "rope_parameters"):
        tell(export, scaling, key)
        read.append(read_config(export))
        theirs.append(transformers.DeepseekV3Config(**read_json(export / "config.json")).rope_parameters)
    assert read[0] == read[1]
    assert theirs[0] == theirs[1]


def test_the_keys_of_the_table_change_logits(export: Path) -> None:
    found = []
    for name in (
        "as DeepSeek published it",
        "the least",
        "both, unlike",
        "attention_factor",
        "beta_fast",
        "no scaling",
    ):
        tell(export, TABLE[name])
        found.append(both_logits(export)[0])
    for index, logits in enumerate(found):
        assert all(float((logits - other).abs().max()) > 1e-3 for other in found[:index])


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize(("scaling", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_can_be_read_in_two_ways_is_refused(export: Path, scaling: dict, message: str, key: str) -> None:
    tell(export, scaling, key)
    with pytest.raises(DamagedCheckpointError, match=message.replace("rope_scaling", key)):
        read_config(export)


@pytest.mark.parametrize(
    "yarn",
    [
        YarnConfig(40, 4),
        YarnConfig(40, 4, mscale=0.7, mscale_all_dim=0.0),
        YarnConfig(40, 4, mscale=0.0, mscale_all_dim=1.0),
        YarnConfig(40, 4, beta_fast=2, attention_factor=0.6, truncate=False),
    ],
)
def test_what_is_written_is_read_alike_by_all(build_decoder, export_decoder, tmp_path: Path, yarn: YarnConfig) -> None:
    decoder = build_decoder(max_position_embeddings=LONGEST, num_nextn_predict_layers=0, rope_scaling=yarn)
    export_decoder(decoder, tmp_path / "export")
    ours, theirs = both_logits(tmp_path / "export")
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5
    assert read_config(tmp_path / "export") == decoder.config


def test_the_base_of_the_rotation_is_told_once(export: Path) -> None:
    tell(export, {**FACTOR, "rope_theta": 500.0})
    write_json(export / "config.json", read_json(export / "config.json") | {"rope_theta": 10000.0})
    with pytest.raises(DamagedCheckpointError, match=r"two different rope_theta, 10000\.0 and 500\.0"):
        read_config(export)
    values = read_json(export / "config.json")
    del values["rope_theta"], values["rope_scaling"]
    write_json(export / "config.json", values)
    assert (read_config(export).rope_theta, read_config(export).rope_scaling) == (10000.0, None)
