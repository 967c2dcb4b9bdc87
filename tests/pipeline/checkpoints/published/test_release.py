"""The checkpoint that this layout is named after, as its publisher wrote it: opened, planned, and converted in part."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.checkpoints.conversion import ConversionOptions
from pipeline.checkpoints.layouts import deepseek, huggingface
from pipeline.checkpoints.layouts.huggingface_config import describe
from pipeline.checkpoints.names import in_prediction_module
from pipeline.checkpoints.quantisation import RoundingLog, retype
from pipeline.checkpoints.registry import detect_layout, open_checkpoint
from pipeline.checkpoints.stored_tensor import CheckpointSource
from pipeline.plumbing.files import read_json, write_json
from tests.pipeline.checkpoints.published.release import CONFIG, CONFIGS, N_SHARDS, TOTAL_SIZE, write_release

# Of DeepSeek-V3, counted from its modules: 671,026,404,352, a prediction module's own 11,610,067,968, and 59 routers'
# biases of 256.
N_NUMBERS = 671_026_404_352 + 11_610_067_968 + 59 * 256
N_EXPERT_LOADS = 59 * 256


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "DeepSeek-V3"
    folder.mkdir()
    write_release(folder, CONFIG)
    return folder


@pytest.fixture(scope="module")
def source(release: Path) -> CheckpointSource:
    return open_checkpoint(release)


def test_it_is_opened_whole(release: Path, source: CheckpointSource) -> None:
    index = json.loads((release / huggingface.INDEX_FILE).read_text())
    assert (index["metadata"]["total_size"], len(set(index["weight_map"].values()))) == (TOTAL_SIZE, N_SHARDS)
    assert detect_layout(release) == "huggingface"
    assert (source.unexpected, source.missing, source.notes, source.doubts) == ((), (), (), ())
    assert not source.separate
    assert sum(math.prod(stored.shape) for stored in source.tensors.values()) == N_NUMBERS + N_EXPERT_LOADS
    assert (source.config.num_hidden_layers, source.config.num_nextn_predict_layers) == (61, 1)
    assert source.config.rope_scaling is not None
    assert (source.config.rope_scaling.mscale, source.config.rope_scaling.mscale_all_dim) == (1.0, 1.0)


def test_it_is_planned_in_every_layout_it_can_have(source: CheckpointSource) -> None:
    plan = huggingface.plan(source, ConversionOptions())
    assert sum(file.n_bytes for file in plan.files) == pytest.approx(688.6e9, rel=1e-4)
    main = {name: stored for name, stored in source.tensors.items() if not in_prediction_module(name, source.config)}
    without = replace(source, tensors=main, config=replace(source.config, num_nextn_predict_layers=0))
    ranks = deepseek.plan(without, ConversionOptions(n_model_parallel=16))
    assert sum(file.name.startswith("model") for file in ranks.files) == 16
    with pytest.raises(ValueError, match=r"set drop=\[mtp\]"):
        deepseek.plan(source, ConversionOptions())


def test_a_part_of_it_is_converted(source: CheckpointSource, tmp_path: Path) -> None:
    expert = {name: s for name, s in source.tensors.items() if ".layers.3.mlp.experts.7." in name}
    whole = replace(source, tensors=source.tensors | retype(expert, "bfloat16", RoundingLog()))
    # A tensor a file: those of the expert are among them, and no other is written.
    plan = huggingface.plan(whole, ConversionOptions(shard_bytes=1))
    index = json.loads(written(plan.files, huggingface.INDEX_FILE, tmp_path).read_text())["weight_map"]
    for name, stored in expert.items():
        tensors = load_file(written(plan.files, index[name], tmp_path))
        assert {n: (t.dtype, tuple(t.shape)) for n, t in tensors.items()} == {name: (torch.bfloat16, stored.shape)}
        assert f"{name}_scale_inv" not in index


def written(files, name: str, folder: Path) -> Path:
    (file,) = (file for file in files if file.name == name)
    file.write(folder / name, lambda n_bytes: None)
    return folder / name


@pytest.mark.parametrize("name", CONFIGS)
def test_every_release_is_the_same_architecture(source: CheckpointSource, tmp_path: Path, name: str) -> None:
    write_json(tmp_path / "config.json", CONFIGS[name])
    described = describe(tmp_path)
    assert described.config == source.config
    assert described.quantisation == CONFIGS[name]["quantization_config"]
    assert described.notes == ()


@pytest.mark.parametrize("dtype", ["keep", "fp8"])
def test_how_factors_were_rounded_is_carried_on_where_they_stay(
    build_decoder, export_decoder, convert_path, tmp_path: Path, dtype: str
) -> None:
    export_decoder(build_decoder(), tmp_path / "export", dtype="fp8")
    told = CONFIGS["V3.1"]["quantization_config"]
    values = read_json(tmp_path / "export" / "config.json") | {"quantization_config": told}
    write_json(tmp_path / "export" / "config.json", values)
    (tmp_path / "export" / "checksums.json").unlink()
    convert_path(tmp_path / "export", tmp_path / "again", "huggingface", dtype=dtype)
    written_config = read_json(tmp_path / "again" / "config.json")["quantization_config"]
    assert written_config == (told if dtype == "keep" else CONFIG["quantization_config"])
