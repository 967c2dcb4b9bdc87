"""Exports, held against what vLLM and SGLang ask for: servers.json has it, read from their loaders, in our words."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.yarn import YarnConfig
from pipeline.checkpoints.layouts.servers import server_notes
from pipeline.plumbing.files import read_json

RECORDED = read_json(Path(__file__).with_name("servers.json"))
SERVERS = ("vllm", "sglang")
INDEX = "model.safetensors.index.json"
ARCHITECTURES = {
    "as trained": {},
    "plain queries": {"q_lora_rank": None},
    "two modules": {"num_nextn_predict_layers": 2},
    "no modules": {"num_nextn_predict_layers": 0},
    "tied": {"tie_word_embeddings": True},
    "segments": {"num_expert_segments": 2, "expert_segment_routing": "independent", "num_experts_per_tok": 1},
    "dense alone": {"first_k_dense_replace": 3, "num_nextn_predict_layers": 0},
}


def asked_for(server: str, config: dict[str, Any]) -> set[str]:
    """The tensors that a server looks for in an export of this config.json."""
    tables = RECORDED["tensors"]
    names = set(tables["outside"])
    n_layers, n_modules = config["num_hidden_layers"], config["num_nextn_predict_layers"]
    for layer in range(n_layers + n_modules):
        inside = [*tables["layer"], *tables["plain_query" if config["q_lora_rank"] is None else "compressed_query"]]
        if layer < config["first_k_dense_replace"]:
            inside += tables["dense"]
        else:
            experts = range(config["n_routed_experts"])
            inside += tables["mixture"]
            inside += [name.format(expert=expert) for name in tables["expert"] for expert in experts]
        if layer >= n_layers:
            inside += tables["module"]
            inside += tables["module_copies"] if RECORDED[server]["loads_copies_of_modules"] else []
        names |= {f"model.layers.{layer}.{name}" for name in inside}
    return names


def left_aside(server: str, config: dict[str, Any]) -> set[str]:
    """The tensors that a server meets in an export and passes over."""
    if RECORDED[server]["loads_copies_of_modules"]:
        return set()
    first, last = config["num_hidden_layers"], config["num_hidden_layers"] + config["num_nextn_predict_layers"]
    copies = RECORDED["tensors"]["module_copies"]
    return {f"model.layers.{layer}.{name}" for layer in range(first, last) for name in copies}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("changes", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_an_export_holds_the_tensors_that_a_server_asks_for_and_no_others(
    build_decoder, export_decoder, tmp_path: Path, server: str, changes: dict[str, Any]
) -> None:
    export_decoder(build_decoder(**changes), tmp_path / "export")
    config = read_json(tmp_path / "export" / "config.json")
    # Both read the files that the index names, and no others: statistics beside them disturb nobody.
    names = set(read_json(tmp_path / "export" / INDEX)["weight_map"])
    assert names == asked_for(server, config) | left_aside(server, config)


@pytest.mark.parametrize("server", SERVERS)
def test_an_export_in_fp8_has_factors_where_a_server_quantises(
    build_decoder, export_decoder, tmp_path: Path, server: str
) -> None:
    export_decoder(build_decoder(), tmp_path / "export", dtype="fp8")
    config = read_json(tmp_path / "export" / "config.json")
    assert config["quantization_config"]["quant_method"] == "fp8"
    assert config["quantization_config"]["activation_scheme"] == "dynamic"
    assert config["quantization_config"]["weight_block_size"] == [128, 128]
    in_fp8 = tuple(RECORDED["tensors"]["in_fp8"])
    expected = {name for name in asked_for(server, config) if name.endswith(in_fp8)}
    names = read_json(tmp_path / "export" / INDEX)["weight_map"]
    assert {name.removesuffix("_scale_inv") for name in names if name.endswith("_scale_inv")} == expected


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("scaling", [None, YarnConfig(factor=4, original_max_position_embeddings=64)])
def test_config_json_tells_what_a_server_reads(
    build_decoder, export_decoder, tmp_path: Path, server: str, scaling: YarnConfig | None
) -> None:
    export_decoder(build_decoder(rope_scaling=scaling), tmp_path / "export")
    config = read_json(tmp_path / "export" / "config.json")
    recorded = RECORDED[server]
    assert config["architectures"] == [recorded["architecture"]]
    assert (config["model_type"], config["hidden_act"], config["topk_method"]) == ("deepseek_v3", "silu", "noaux_tc")
    assert set(recorded["needed"]) <= set(config)
    for name, silent in recorded["taken_where_silent"].items():
        assert name in config, f"{server} would take {silent}"
    kind = "default" if scaling is None else "yarn"
    assert config["rope_parameters"]["rope_type"] == kind
    # SGLang scales positions wherever there is anything in rope_scaling.
    assert (config["rope_scaling"] is None) == (scaling is None)


def test_a_server_learns_where_speech_ends(build_decoder, export_decoder, tmp_path: Path) -> None:
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    export_decoder(build_decoder(), tmp_path / "export", special_tokens=tokens)
    for name in ("config.json", "generation_config.json"):
        described = read_json(tmp_path / "export" / name)
        assert {key: described[key] for key in tokens} == tokens


@pytest.mark.parametrize(
    ("changes", "in_fp8", "words"),
    [
        ({"rope_interleave": False}, False, "rope_interleave"),
        ({"rms_norm_eps": 1e-5}, False, "rms_norm_eps"),
        ({"n_shared_experts": 0}, False, "without shared experts"),
        ({"num_nextn_predict_layers": 2}, False, "SGLang drafts with one"),
        ({"rope_scaling": YarnConfig(4, 64, truncate=False)}, False, "truncate"),
        ({}, True, "q_lora_rank and intermediate_size and moe_intermediate_size are multiples of 128"),
        ({"q_lora_rank": 256, "intermediate_size": 384, "first_k_dense_replace": 3}, True, ""),
        ({}, False, ""),
    ],
)
def test_what_servers_do_otherwise_is_said(
    tiny_config: DecoderConfig, changes: dict[str, Any], in_fp8: bool, words: str
) -> None:
    notes = server_notes(replace(tiny_config, **changes), in_fp8)
    assert len(notes) == bool(words)
    assert words in "".join(notes)


@pytest.mark.parametrize("server", SERVERS)
def test_sources_are_named(server: str) -> None:
    assert all(" at " in source for source in RECORDED[server]["read"])
