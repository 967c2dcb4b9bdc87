from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from pipeline.checkpoints.architecture_match import OpenOptions
from pipeline.checkpoints.conversion import Conversion, ConversionOptions, convert
from pipeline.checkpoints.names import ALWAYS_FP32
from pipeline.checkpoints.registry import open_checkpoint
from pipeline.checkpoints.stored_tensor import CheckpointSource


@pytest.fixture(scope="session")
def random_weights() -> Callable[..., dict[str, Tensor]]:
    """A decoder's state dict of random numbers, each its own; what has to be FP32 is."""

    def draw(config: DecoderConfig, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        with torch.device("meta"):
            expected = Decoder(config).state_dict()
        weights = {}
        for name, tensor in expected.items():
            numbers = torch.randn(tensor.shape, generator=generator)
            weights[name] = numbers if name.endswith(ALWAYS_FP32) else numbers.to(dtype)
        if config.tie_word_embeddings:
            weights["lm_head.weight"] = weights["embed_tokens.weight"]
        return weights

    return draw


@pytest.fixture(scope="session")
def save_training() -> Callable[..., Path]:
    """Write weights as Lightning saves those of a training."""

    def save(path: Path, config: DecoderConfig, weights: dict[str, Tensor], **others: Any) -> Path:
        checkpoint = {
            "state_dict": {f"decoder.{name}": tensor for name, tensor in weights.items()},
            "hyper_parameters": {"decoder": asdict(config)},
            "global_step": 7,
            "epoch": 0,
            "pytorch-lightning_version": "2.6.6",
        }
        torch.save(checkpoint | others, path)
        return path

    return save


@pytest.fixture(scope="session")
def convert_path() -> Callable[..., Conversion]:
    """Convert a checkpoint, in small shards."""

    def run(source: Path, target: Path, layout: str, config: DecoderConfig | None = None, **options: Any) -> Conversion:
        opened = open_checkpoint(source, options=OpenOptions(config=config))
        return convert(opened, target, layout, ConversionOptions(**{"shard_bytes": 20_000} | options))

    return run


@pytest.fixture
def export_decoder(save_training, convert_path, tmp_path: Path) -> Callable[..., Conversion]:
    """Write a decoder in a layout, as the pipeline does: from the checkpoint of its training."""

    def export(decoder: Decoder, target: Path, layout: str = "huggingface", **options: Any) -> Conversion:
        source = save_training(tmp_path / "trained.ckpt", decoder.config, decoder.state_dict())
        return convert_path(source, target, layout, **options)

    return export


@pytest.fixture(scope="session")
def read_all() -> Callable[[Path], dict[str, Tensor]]:
    """Every tensor of a checkpoint by its published name; factors of FP8 blocks as `….scale`."""

    def read(path: Path | CheckpointSource) -> dict[str, Tensor]:
        source = path if isinstance(path, CheckpointSource) else open_checkpoint(path)
        tensors = {name: stored.read() for name, stored in source.tensors.items()}
        scales = {f"{name}.scale": stored.scale.read() for name, stored in source.tensors.items() if stored.scale}
        return tensors | scales

    return read
