"""The `conversion` group of the configuration. Light: needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.audio.measures.gate import FlatnessGate
from pipeline.checkpoints.choices import DROPPABLE, DTYPES, READABLE_LAYOUTS, WEIGHTS, WRITABLE_LAYOUTS
from pipeline.configuration.settings import check_known, read_settings
from pipeline.plumbing.device import check_device


@dataclass(frozen=True)
class ConversionSettings:
    """How a checkpoint is read, written and judged.

    Attributes:
        source_layout: null: told from the files.
        rename_legacy: give weights with names of the past their names of today.
        allow_missing: published names, or globs of them, that may be absent, and are random then; what only a glob
            names fails the verdict.
        weights: `trained`, or `ema`: the running mean that `trainer.ema_decay` keeps.
        dtype: of the weights in the target.
        drop: what to leave out.
        n_model_parallel: ranks of DeepSeek's inference layout.
        shard_gib: the size of a file of a sharded layout.
        accept: let the target take its place although the verdict is fail.
        max_run_gib: memory for running the model; a larger one is not run.
        held_out_tokens: how much held-out speech to score.
        clips: utterances to generate.
        clip_seconds: of each.
        device: that scores and speaks.
        flatness_gate: limits on their spectral flatness.

    Raises:
        ValueError: naming the key, and what it may be.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {
        "n_model_parallel": 4096, "shard_gib": 10**6, "max_run_gib": 10**6, "held_out_tokens": 10**8, "clips": 10_000,
        "clip_seconds": 600,
    }  # fmt: skip

    source_layout: str | None
    rename_legacy: bool
    allow_missing: tuple[str, ...]
    weights: str
    dtype: str
    drop: tuple[str, ...]
    n_model_parallel: int
    shard_gib: float
    accept: bool
    max_run_gib: float
    held_out_tokens: int
    clips: int
    clip_seconds: float
    device: str
    flatness_gate: FlatnessGate

    def __post_init__(self) -> None:
        if self.source_layout is not None:
            check_known("conversion.source_layout", self.source_layout, READABLE_LAYOUTS)
        check_known("conversion.weights", self.weights, WEIGHTS)
        check_known("conversion.dtype", self.dtype, DTYPES)
        check_device("conversion.device", self.device)
        for name in self.drop:
            check_known("conversion.drop", name, DROPPABLE)
        for name in ("n_model_parallel", "shard_gib", "held_out_tokens", "clips", "clip_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"conversion.{name} is {getattr(self, name)}; it must be positive.")
        if self.max_run_gib < 0:
            raise ValueError(f"conversion.max_run_gib is {self.max_run_gib}; it must not be negative (0 runs nothing).")


def read_conversion(values: Mapping[str, Any]) -> ConversionSettings:
    """The settings in a composed configuration, its `layout` checked with them.

    Raises:
        ValueError: naming the key that cannot be, and the remedy.
    """
    check_known("layout", values["layout"], WRITABLE_LAYOUTS)
    return read_settings(ConversionSettings, values["conversion"], "conversion")
