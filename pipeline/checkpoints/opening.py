"""What was found in a checkpoint, held against the architecture: nothing missing, nothing random in silence."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning_modules.model.configuration import DecoderConfig
from pipeline.checkpoints.stored import CheckpointSource, StoredTensor


@dataclass(frozen=True)
class OpenOptions:
    """How a checkpoint is opened.

    Attributes:
        config: the architecture, for layouts whose files do not tell it.
        rename_legacy: give weights that are called by names of the past (`out_proj`) their names of today.
        allow_missing: globs of published names, such as `*.o_proj.weight`, that may be absent; random weights take
            their places.
        seed: of those random weights.
    """

    config: DecoderConfig | None = None
    rename_legacy: bool = True
    allow_missing: tuple[str, ...] = ()
    seed: int = 0


def complete(
    found: Mapping[str, StoredTensor],
    config: DecoderConfig,
    layout: str,
    path: Path,
    options: OpenOptions,
    *,
    step: int | None = None,
    renamed: tuple[tuple[str, str], ...] = (),
    left_behind: tuple[str, ...] = (),
) -> CheckpointSource:
    """Compare what a reader found with what the architecture needs.

    Args:
        found: tensors under their published names (`….mlp.gate.expert_loads` among them), stacks already split.
        config: the decoder's architecture.
        layout: the registry's name.
        path: the checkpoint, for messages.
        options: what may be missing.
        step: of the optimizer, where the checkpoint tells.
        renamed: (name in the file, name of today) of what the reader has renamed.
        left_behind: what else the file holds.

    Raises:
        DamagedCheckpointError: naming weights that are missing and not allowed to be, or have another shape or a type
            that is no weight's.
    """
    raise NotImplementedError
