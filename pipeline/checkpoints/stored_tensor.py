"""What every reader hands to every writer: tensors that lie on a disk until they are asked for.

All layouts meet under the published names of DeepSeek-V3 (`model.layers.3.mlp.experts.7.gate_proj.weight`): no layout
cuts tensors finer. A stacked tensor of ours is many of them, and reading one reads its part of the stack alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig


class DamagedCheckpointError(ValueError):
    """A checkpoint that must not be used; the message names the file, the tensor where there is one, and the remedy."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on the disk.

    Attributes:
        shape: of the whole tensor.
        dtype: as it is stored.
        file: where it lies, for messages.
        read: reads it, now, onto the CPU; whoever calls holds the only copy.
        scale: of a tensor in FP8, the factors of its 128 × 128 blocks, FP32 `[ceil(out / 128), ceil(in / 128)]`.
        read_rows: reads `[start:stop]` of the first dimension alone, where the file allows it; None: `read` has to do.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path
    read: Callable[[], Tensor]
    scale: "StoredTensor | None" = None
    read_rows: Callable[[int, int], Tensor] | None = None

    @property
    def n_bytes(self) -> int:
        """Of its numbers, without the scale."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


@dataclass(frozen=True)
class CheckpointSource:
    """A checkpoint that was opened, and what had to be done about it.

    Attributes:
        layout: the registry's name of its layout.
        path: the file or folder.
        config: the decoder's architecture.
        tensors: every tensor of the architecture under its published name, in the decoder's order, and
            `….mlp.gate.expert_loads`, which the published layout has no name for. The copies of the embedding and the
            head that prediction modules get in published files are not among them: they were compared, and left out.
        step: the optimizer step it was saved at, where it tells.
        renamed: (name in the file, name of today) of everything a repair has renamed, such as `out_proj`.
        initialised: statistics that the file lacks, and that begin anew; `tensors` holds them, zero.
        missing: weights that the file lacks and that the caller allowed by name; `tensors` holds random ones.
        unexpected: names in the file that the architecture has no place for.
        left_behind: what else the file holds and no conversion carries over, such as `optimizer_states`.
        weights: `trained`, or `ema` where they are the running mean.
        dropped: published names of what is there and was not asked for.
        separate: by their published names, embeddings and heads of prediction modules that are not the decoder's own,
            as modules grafted from another training have them; the published layout alone has a place for them.
        quantisation: what the source says of its FP8 weights.
        notes: what a reader took for granted.
        doubts: what is odd about the source, and no reason to refuse it.
        identity: what a training's own checkpoint says about which training it is from.
    """

    layout: str
    path: Path
    config: DecoderConfig
    tensors: Mapping[str, StoredTensor]
    step: int | None = None
    renamed: tuple[tuple[str, str], ...] = ()
    initialised: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    weights: str = "trained"
    identity: Mapping[str, str] | None = None
    dropped: tuple[str, ...] = ()
    separate: Mapping[str, StoredTensor] = field(default_factory=dict)
    quantisation: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def all_tensors(self) -> dict[str, StoredTensor]:
        """`tensors`, and `separate` with them."""
        return {**self.tensors, **self.separate}


def separate_sentence(source: CheckpointSource) -> str:
    """Why a decoder, which shares its embedding and head with its prediction modules, cannot be what a source is."""
    return (
        f"{source.path}: {next(iter(source.separate))} is not the decoder's own: the prediction modules come from "
        "another training, and the decoder has no place for it; set drop=[mtp] to leave them out, or "
        "layout=huggingface to keep them."
    )
