"""What a conversion is asked for, and the files that a layout makes of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.checkpoints.choices import DROPPABLE, DTYPES


@dataclass(frozen=True)
class ConversionOptions:
    """What is written, beside the layout.

    Attributes:
        dtype: of the weights. `keep`: as they are stored; `fp8`: the projections in FP8 by blocks of 128 × 128, as the
            published checkpoint has them, the rest BF16. Routers' biases stay FP32 always.
        shard_bytes: a file of a sharded layout holds at most this much, or one tensor.
        n_model_parallel: ranks of DeepSeek's inference layout, a file each.
        drop: what to leave out: `mtp` (the prediction modules), `expert_loads` (a statistic of training).
        special_tokens: `bos_token_id`, `eos_token_id`, `pad_token_id` for config.json.

    Raises:
        ValueError: naming the key, what it may be, and the remedy.
    """

    dtype: str = "keep"
    shard_bytes: int = 4 * 2**30
    n_model_parallel: int = 1
    drop: tuple[str, ...] = ()
    special_tokens: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is '{self.dtype}'; choose one of {', '.join(DTYPES)}.")
        if self.shard_bytes < 1 or self.n_model_parallel < 1:
            raise ValueError("shard_bytes and n_model_parallel must be at least 1.")
        if unknown := set(self.drop) - set(DROPPABLE):
            raise ValueError(
                f"drop names {', '.join(sorted(unknown))}; only {' and '.join(DROPPABLE)} can be left out."
            )


@dataclass(frozen=True)
class PlannedFile:
    """A file that is to be written.

    Attributes:
        name: in the target's folder.
        n_bytes: of the tensors it will hold.
        write: writes it to a path, and tells after every piece how many bytes of tensors it has written since the last.
            Returns the file's SHA-256 where it was summed up on the way.
    """

    name: str
    n_bytes: int
    write: Callable[[Path, Callable[[int], None]], str | None]


@dataclass(frozen=True)
class Plan:
    """All that a layout will write.

    Attributes:
        files: in order of writing. A layout of a single file has one, which takes the target's own name.
        is_folder: whether the target is a folder.
        n_tensors: how many tensors the files hold, factors of FP8 blocks not counted.
        copies: (published name, name in the target) of tensors that are written a second time.
        notes: what a user of the target has to know.
    """

    files: tuple[PlannedFile, ...]
    is_folder: bool
    n_tensors: int
    copies: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
