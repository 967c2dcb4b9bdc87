"""Training checkpoints of one device: the single file that Lightning writes."""

from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.checkpoints.architecture_match import OpenOptions
from pipeline.checkpoints.files.pickle_file import open_pickle, stored
from pipeline.checkpoints.layouts.training_state import (
    AVERAGE,
    WEIGHTS,
    names,
    planned_stacks,
    training_source,
    training_values,
)
from pipeline.checkpoints.stored_tensor import CheckpointSource, DamagedCheckpointError
from pipeline.checkpoints.writing.archive_writer import archive_file
from pipeline.checkpoints.writing.plan import ConversionOptions, Plan

__all__ = ["LOOKS_FOR", "NAME", "names", "open_source", "plan", "recognises"]
NAME = "lightning"
LOOKS_FOR = "a file with state_dict and hyper_parameters"


def recognises(path: Path) -> bool:
    """Whether a file holds what Lightning saves; one that cannot be opened is for the legacy reader to explain."""
    if not path.is_file():
        return False
    try:
        return {WEIGHTS, "hyper_parameters"} <= open_pickle(path).keys()
    except DamagedCheckpointError:
        return False


def open_source(path: Path, options: OpenOptions) -> CheckpointSource:
    """Open what `pipeline.train` saved; tensors stay on the disk.

    Raises:
        FileNotFoundError: when there is no such file.
        DamagedCheckpointError: when it is not a training checkpoint, incomplete, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run `python -m pipeline.train` first.")
    content = open_pickle(path)
    weights = content.get(WEIGHTS)
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise DamagedCheckpointError(f"{path} is not a training checkpoint: it has no {WEIGHTS} of tensors.")
    tensors = {name: stored(tensor, path) for name, tensor in weights.items()}
    average = content.get(AVERAGE)
    if not isinstance(average, dict) or not all(isinstance(tensor, Tensor) for tensor in average.values()):
        average = {}
    means = {str(name): stored(tensor, path) for name, tensor in average.items()}
    return training_source(tensors, means, content, NAME, path, options)


def plan(source: CheckpointSource, options: ConversionOptions) -> Plan:
    """Plan the single file; `trainer.start_from` takes it.

    Raises:
        ValueError: when there is FP8 among the tensors.
    """
    tensors = planned_stacks(source)
    file = archive_file("checkpoint.ckpt", tensors, partial(_arrange, training_values(source)))
    return Plan((file,), is_folder=False, n_tensors=len(tensors))


def _arrange(values: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Any]:
    return {**values, WEIGHTS: weights}
