"""Legacy pickles; tests/pipeline/checkpoints/test_loading.py loads them into a model."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.model.decoder import Decoder
from pipeline.checkpoints.architecture_match import OpenOptions
from pipeline.checkpoints.registry import open_checkpoint
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError
from tests.conftest import TINY

OPTIONS = OpenOptions(TINY)


@pytest.fixture(scope="module")
def weights(build_decoder) -> dict[str, torch.Tensor]:
    decoder: Decoder = build_decoder()
    return decoder.state_dict()


def save(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def test_a_lightning_file_is_told_from_a_legacy_one_by_its_hyper_parameters(weights, tmp_path: Path) -> None:
    path = save({"state_dict": weights, "global_step": 5}, tmp_path / "x.ckpt")
    source = open_checkpoint(path, options=OPTIONS)
    assert (source.layout, source.step) == ("legacy", 5)
    assert source.left_behind == ()


def test_published_names_in_a_pickle_are_understood(weights, tmp_path: Path) -> None:
    renamed = {}
    for name, tensor in weights.items():
        if name.startswith(("layers", "norm", "embed")) and ".experts." not in name:
            renamed[f"model.{name}"] = tensor
        else:
            renamed[name] = tensor
    for layer in (1, 2):
        base = f"layers.{layer}.mlp.experts."
        gate_up, down = renamed.pop(f"{base}gate_up_proj"), renamed.pop(f"{base}down_proj")
        for expert in range(TINY.n_routed_experts):
            gate, up = gate_up[expert].chunk(2)
            for projection, matrix in {"gate": gate, "up": up, "down": down[expert]}.items():
                renamed[f"model.{base}{expert}.{projection}_proj.weight"] = matrix
    expected = open_checkpoint(save(weights, tmp_path / "own.pt"), options=OPTIONS).tensors
    found = open_checkpoint(save(renamed, tmp_path / "published.pt"), options=OPTIONS)
    assert found.unexpected == ()
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.tensors[name].read(), stored.read()) for name, stored in expected.items())


@pytest.mark.parametrize(
    "content", [{}, {"model": {}}, {"model": {"epoch": 3}}, {"epoch": 3}, {"model": torch.ones(2)}]
)
def test_a_file_without_weights_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DamagedCheckpointError, match=r"x\.pt"):
        open_checkpoint(save(content, tmp_path / "x.pt"), options=OPTIONS)


def test_two_models_in_one_file_are_refused(weights, tmp_path: Path) -> None:
    content = weights | {f"module.{name}": tensor for name, tensor in weights.items()}
    with pytest.raises(DamagedCheckpointError, match="more than one model"):
        open_checkpoint(save(content, tmp_path / "x.pt"), options=OPTIONS)


def test_a_file_with_both_names_of_a_projection_keeps_todays(weights, tmp_path: Path) -> None:
    old = "layers.0.self_attn.out_proj.weight"
    path = save(weights | {old: torch.zeros(32, 24)}, tmp_path / "x.pt")
    source = open_checkpoint(path, options=OPTIONS)
    assert (source.renamed, source.unexpected) == ((), (old,))
    found = source.tensors["model.layers.0.self_attn.o_proj.weight"].read()
    assert torch.equal(found, weights["layers.0.self_attn.o_proj.weight"])
