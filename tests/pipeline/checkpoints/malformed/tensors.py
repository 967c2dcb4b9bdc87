"""Tensors that are not the architecture's weights, in files that are whole."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.pipeline.checkpoints.malformed.corpus import Case, Pristine, legacy, save_training

OWN = "layers.1.self_attn.kv_b_proj.weight"
NORM = "layers.0.input_layernorm.weight"
BIAS = "layers.1.mlp.gate.e_score_correction_bias"
STACK = "layers.1.mlp.experts.gate_up_proj"
NO_CHANGE = "tensors as they were"
Weights = dict[str, Tensor]


def tensors(pristine: Pristine) -> Iterator[Case]:
    """Every change of the weights in every layout that is written without a conversion, which would refuse them."""
    writers: dict[str, Callable[[Weights, Path], Path]] = {
        "lightning": lambda weights, folder: save_training(weights, folder / "trained.ckpt"),
        "legacy": lambda weights, folder: _save(legacy(weights), folder),
        "old": lambda weights, folder: _save(legacy(weights), folder, _use_new_zipfile_serialization=False),
        "distributed": lambda weights, folder: _save_distributed(pristine, weights, folder),
    }
    for name, change in CHANGES.items():
        for layout, writer in writers.items():

            def write(
                folder: Path,
                change: Callable[[Weights], Any] = change,
                writer: Callable[[Weights, Path], Path] = writer,
            ) -> Path:
                weights = {name: tensor.clone() for name, tensor in pristine.weights.items()}
                change(weights)
                return writer(weights, folder)

            yield Case(f"{layout}: {name}", write, is_good=name == NO_CHANGE)
    for name, change in PUBLISHED.items():

        def write_published(folder: Path, change: Callable[[Weights], Any] = change) -> Path:
            path = pristine.single(folder)
            weights = load_file(path / "model.safetensors")
            change(weights)
            save_file(weights, path / "model.safetensors")
            return path

        yield Case(f"huggingface: {name}", write_published, is_good=name == NO_CHANGE)


def _fill(name: str, value: float) -> Callable[[Weights], Any]:
    return lambda weights: weights[name].view(-1)[-1:].fill_(value)


def _put(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Weights], Any]:
    return lambda weights: weights.update({name: change(weights[name])})


def _save(content: Any, folder: Path, **options: Any) -> Path:
    torch.save(content, folder / "old.pt", **options)
    return folder / "old.pt"


def _save_distributed(pristine: Pristine, weights: Weights, folder: Path) -> Path:
    path = folder / "sharded"
    state = {"state_dict": {f"decoder.{name}": tensor for name, tensor in weights.items()}}
    dcp.save(state, checkpoint_id=path, no_dist=True)
    (path / "meta.pt").write_bytes((pristine.folder / "distributed" / "meta.pt").read_bytes())
    return path


CHANGES: dict[str, Callable[[Weights], Any]] = {
    NO_CHANGE: lambda weights: None,
    "a NaN": _fill(OWN, float("nan")),
    "a NaN in a stack": _fill(STACK, float("nan")),
    "an infinite norm": _fill(NORM, float("inf")),
    "a bias of minus infinity": _fill(BIAS, float("-inf")),
    "whole numbers": _put(OWN, lambda tensor: tensor.to(torch.int32)),
    "bits": _put(NORM, lambda tensor: tensor.bool()),
    "complex numbers": _put(OWN, lambda tensor: tensor.to(torch.complex64)),
    "another shape": _put(OWN, lambda tensor: tensor.t().contiguous().view(-1, 2)),
    "a dimension more": _put(NORM, lambda tensor: tensor[None]),
    "no dimension": _put(NORM, lambda tensor: tensor[0].clone()),
    "a stack without an expert": _put(STACK, lambda tensor: tensor[:1].clone()),
    "no weight": lambda weights: weights.pop(OWN),
    "no norm": lambda weights: weights.pop(NORM),
    "no bias": lambda weights: weights.pop(BIAS),
    "no stack": lambda weights: weights.pop(STACK),
    "nothing but a norm": lambda weights: [weights.pop(name) for name in list(weights) if name != NORM],
}
FP8 = "model.layers.1.self_attn.kv_b_proj.weight"
SCALE = FP8 + "_scale_inv"
PUBLISHED: dict[str, Callable[[Weights], Any]] = {
    NO_CHANGE: lambda weights: None,
    "FP8 without factors": lambda weights: weights.pop(SCALE),
    "factors without FP8": lambda weights: weights.update({FP8: weights[FP8].float()}),
    "factors of another shape": _put(SCALE, lambda tensor: tensor.repeat(2, 1)),
    "factors in BF16": _put(SCALE, lambda tensor: tensor.bfloat16()),
    "factors that are NaN": _fill(SCALE, float("nan")),
    "infinite factors": _fill(SCALE, float("inf")),
    "FP8 that is NaN": _put(FP8, lambda tensor: torch.full_like(tensor.view(torch.uint8), 0x7F).view(tensor.dtype)),
    "E5M2": _put(FP8, lambda tensor: tensor.float().to(torch.float8_e5m2)),
    "FP8 in a norm": _put("model.norm.weight", lambda tensor: tensor.to(torch.float8_e4m3fn)),
    "whole numbers": _put("model.norm.weight", lambda tensor: tensor.to(torch.int64)),
    "an expert missing": lambda weights: [weights.pop(name) for name in list(weights) if ".experts.1.up_proj" in name],
    "a NaN": _fill("lm_head.weight", float("nan")),
}
