"""What was found in a checkpoint, held against the architecture: nothing missing, nothing random in silence."""

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.precision.emulation import E4M3
from pipeline.checkpoints.choices import AVERAGED, TRAINED
from pipeline.checkpoints.names import (
    ALWAYS_FP32,
    EMBEDDING,
    EXPERT_LOADS,
    HEAD,
    Part,
    in_prediction_module,
    published_name,
    published_parts,
)
from pipeline.checkpoints.other_formats import READABLE, check_factors
from pipeline.checkpoints.replacement_tensors import random_weight, zeros
from pipeline.checkpoints.slices import same_numbers
from pipeline.checkpoints.stored_tensor import CheckpointSource, DamagedCheckpointError, StoredTensor
from pipeline.checkpoints.tensor_summary import described

log = logging.getLogger(__name__)

# What weights were called in the past, and are called today.
LEGACY_NAMES = {"out_proj": "o_proj"}
WIDE_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True)
class OpenOptions:
    """How a checkpoint is opened.

    Attributes:
        config: the architecture, for layouts whose files do not tell it.
        rename_legacy: give weights that are called by names of the past (`out_proj`) their names of today.
        allow_missing: globs of published names, such as `*.o_proj.weight`, that may be absent; random weights take
            their places.
        seed: of those random weights.
        drop: what is left out though it is there: `mtp`, the prediction modules.
        weights: `trained`, or `ema`: their running mean.
    """

    config: DecoderConfig | None = None
    rename_legacy: bool = True
    allow_missing: tuple[str, ...] = ()
    seed: int = 0
    drop: tuple[str, ...] = ()
    weights: str = TRAINED


def in_dropped_module(name: str, config: DecoderConfig, drop: tuple[str, ...]) -> bool:
    """Whether a published name belongs to prediction modules that are to be left out."""
    return "mtp" in drop and in_prediction_module(name, config)


def complete(
    found: Mapping[str, StoredTensor],
    config: DecoderConfig,
    layout: str,
    path: Path,
    options: OpenOptions,
    *,
    step: int | None = None,
    left_behind: tuple[str, ...] = (),
    averaged: bool = False,
) -> CheckpointSource:
    """Compare what a reader found with what the architecture needs.

    Legacy names are repaired here, whatever the layout, and a head that is tied to the embedding is put in its place.

    Args:
        found: tensors under their published names (`….mlp.gate.expert_loads` among them), stacks already split; what
            the reader could not name keeps its name.
        config: the decoder's architecture.
        layout: the registry's name.
        path: the checkpoint, for messages.
        options: what is renamed, and what may be missing.
        step: of the optimizer, where the checkpoint tells.
        left_behind: what else the file holds.
        averaged: whether `found` are running means.

    Raises:
        DamagedCheckpointError: naming weights that are missing and not allowed to be, that have another shape or a type
            that is no weight's, or a tied head that is none.
        ValueError: when running means are asked for, and there are none.
    """
    dropped = tuple(name for name in found if in_dropped_module(name, config, options.drop))
    if options.weights == AVERAGED and not averaged:
        raise ValueError(
            f"{path} holds no running mean of its weights: only checkpoints of trainings with trainer.ema_decay do; "
            "take the trained ones (evaluate.weights=trained, conversion.weights=trained)."
        )
    if "mtp" in options.drop:
        config = replace(config, num_nextn_predict_layers=0)
    parts = published_parts(config)
    tensors = {name: stored for name, stored in found.items() if name not in set(dropped)}
    renamed = _rename_legacy(tensors, parts, config) if options.rename_legacy else ()
    if config.tie_word_embeddings:
        _tie_head(tensors, path)
    for name, part in parts.items():
        if name in tensors:
            _check_tensor(name, tensors[name], part.shape)
    absent = [name for name in parts if name not in tensors]
    initialised = tuple(name for name in absent if name.endswith(EXPERT_LOADS))
    missing = tuple(name for name in absent if not name.endswith(EXPERT_LOADS))
    check_missing(missing, options.allow_missing, path)
    dtype = _usual_type(tensors)
    for name in absent:
        tensors[name] = _fresh(name, parts[name], dtype, config, options.seed, path)
    if initialised:
        log.info("%s holds no expert loads of %d layers: they begin at zero.", path, len(initialised))
    return CheckpointSource(
        layout=layout,
        path=path,
        config=config,
        tensors={name: tensors[name] for name in parts},
        step=step,
        renamed=renamed,
        initialised=initialised,
        missing=missing,
        unexpected=tuple(name for name in tensors if name not in parts),
        left_behind=left_behind,
        dropped=dropped,
        weights=options.weights,
    )


def check_missing(missing: tuple[str, ...], allowed: tuple[str, ...], path: Path) -> None:
    """Raise a `DamagedCheckpointError` unless all that is missing may be, and say what is.

    Args:
        missing: published names.
        allowed: globs of those that may be missing.
        path: the checkpoint, for messages.
    """
    refused = [name for name in missing if not any(fnmatchcase(name, pattern) for pattern in allowed)]
    if refused:
        raise DamagedCheckpointError(
            f"{path}: {described(refused, 'missing')} ({refused[0]}{' and others' if len(refused) > 1 else ''}). They "
            "would be random: get the whole checkpoint, or name what may be missing in allow_missing."
        )
    if missing:
        log.warning("%s: %s; they are random now, as allow_missing permits.", path, described(missing, "missing"))


def _rename_legacy(
    tensors: dict[str, StoredTensor], parts: Mapping[str, Part], config: DecoderConfig
) -> tuple[tuple[str, str], ...]:
    """Give tensors their names of today where these are free; returns (name in the file, name of today)."""
    renamed = []
    for name in [name for name in tensors if name not in parts]:
        today = re.sub(r"(?<=\.)(\w+)(?=\.)", lambda word: LEGACY_NAMES.get(word[1], word[1]), name)
        candidates = (today, published_name(today, config))
        target = next((candidate for candidate in candidates if candidate in parts and candidate not in tensors), None)
        if target is not None:
            tensors[target] = tensors.pop(name)
            renamed.append((name, target))
    if renamed:
        log.info("Renamed %d weights, such as %s to %s.", len(renamed), *renamed[0])
    return tuple(renamed)


def _tie_head(tensors: dict[str, StoredTensor], path: Path) -> None:
    """Take the embedding for the head where there is none; one that is there has to be the same."""
    if EMBEDDING not in tensors:
        return
    head = tensors.setdefault(HEAD, tensors[EMBEDDING])
    if head is not tensors[EMBEDDING] and not same_numbers(head, tensors[EMBEDDING]):
        raise DamagedCheckpointError(
            f"{path}: {HEAD} is not {EMBEDDING}, but the architecture ties them (tie_word_embeddings); get the file "
            "again, or its configuration."
        )


def _check_tensor(name: str, stored: StoredTensor, shape: tuple[int, ...]) -> None:
    """Raise unless a tensor can be the weight of this name."""
    if stored.shape != shape:
        raise DamagedCheckpointError(
            f"{stored.file}: {name} has the shape {list(stored.shape)}, but the architecture asks for {list(shape)}; "
            "the two are not of the same model."
        )
    if stored.dtype not in (*WIDE_TYPES, E4M3):
        raise DamagedCheckpointError(
            f"{stored.file}: {name} is in {stored.dtype}, which is read of no weight: take an export in {READABLE}."
        )
    if stored.dtype == E4M3 and (len(shape) != 2 or stored.scale is None):
        raise DamagedCheckpointError(
            f"{stored.file}: {name} is in FP8, but the factors of its blocks ({name}_scale_inv) are absent; get the "
            "file again, or, if its FP8 has no factors, an export in another type."
        )
    check_factors(name, stored)


def _usual_type(tensors: Mapping[str, StoredTensor]) -> torch.dtype:
    """What most tensors are in, FP8 aside."""
    types = Counter(
        stored.dtype
        for name, stored in tensors.items()
        if stored.dtype in WIDE_TYPES and not name.endswith(ALWAYS_FP32)
    )
    return types.most_common(1)[0][0] if types else torch.float32


def _fresh(name: str, part: Part, dtype: torch.dtype, config: DecoderConfig, seed: int, path: Path) -> StoredTensor:
    if name.endswith(ALWAYS_FP32):
        return zeros(part.shape, torch.float32, path)
    return random_weight(name, part.shape, dtype, config.initializer_range, seed, path)
