"""Training checkpoints: one file that Lightning wrote."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig

WEIGHT_PREFIX = "decoder."


@dataclass(frozen=True)
class TrainedDecoder:
    """A decoder as a checkpoint holds it: its architecture, and weights under the decoder's own names."""

    config: DecoderConfig
    weights: dict[str, Tensor]
    step: int


def read_training_checkpoint(path: Path | str) -> TrainedDecoder:
    """Read what `pipeline.train` saved.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is not a training checkpoint, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run `python -m pipeline.train` first.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        config = DecoderConfig(**checkpoint["hyper_parameters"]["decoder"])
        state = checkpoint["state_dict"]
        step = int(checkpoint["global_step"])
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a training checkpoint, or it is damaged ({error}).") from error
    weights = {name.removeprefix(WEIGHT_PREFIX): tensor for name, tensor in state.items()}
    return TrainedDecoder(config, weights, step)
