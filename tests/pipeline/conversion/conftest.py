from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.model.decoder import Decoder
from pipeline.checkpoints.conversion import ConversionOptions, convert
from pipeline.checkpoints.names import published_parts
from pipeline.checkpoints.registry import open_checkpoint
from pipeline.checkpoints.stored_tensor import CheckpointSource, StoredTensor


@pytest.fixture
def source_of() -> Callable[..., CheckpointSource]:
    """What a decoder's checkpoint holds, some tensors in other numbers."""

    def describe(decoder: Decoder, changes: Mapping[str, Tensor] | None = None) -> CheckpointSource:
        own, path = decoder.state_dict(), Path("made")
        tensors = {}
        for name, part in published_parts(decoder.config).items():
            tensor = own[part.own] if part.expert is None else own[part.own][part.expert]
            tensors[name] = tensor if part.expert is None else tensor[part.start : part.start + part.shape[0]]
        stored = {
            name: StoredTensor(tuple(tensor.shape), tensor.dtype, path, tensor.clone)
            for name, tensor in (tensors | dict(changes or {})).items()
        }
        return CheckpointSource("lightning", path, decoder.config, stored)

    return describe


@pytest.fixture
def teach() -> Callable[[Decoder], Decoder]:
    """Give every matrix of a decoder a spike far beyond what chance would give it, as training does."""
    return partial(_teach)


def _teach(decoder: Decoder) -> Decoder:
    for parameter in decoder.parameters():
        if parameter.ndim >= 2:
            parameter.data += 2 * parameter.data.std()
    return decoder


@pytest.fixture
def export_decoder(tmp_path: Path) -> Callable[..., Path]:
    """Write a decoder in the published layout, from the checkpoint of its training at `trained.ckpt`."""

    def export(decoder: Decoder, target: Path, **options: Any) -> Path:
        state = {f"decoder.{name}": tensor for name, tensor in decoder.state_dict().items()}
        values = {"hyper_parameters": {"decoder": asdict(decoder.config)}, "global_step": 1}
        torch.save({"state_dict": state, **values}, tmp_path / "trained.ckpt")
        convert(open_checkpoint(tmp_path / "trained.ckpt"), target, "huggingface", ConversionOptions(**options))
        return target

    return export
