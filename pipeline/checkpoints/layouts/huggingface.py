"""The published DeepSeek-V3 layout: config.json and sharded safetensors, as `transformers`, vLLM and SGLang read it."""

import itertools
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.precision.emulation import E4M3
from pipeline.checkpoints.architecture_match import OpenOptions, complete, in_dropped_module
from pipeline.checkpoints.files.safetensors_file import open_safetensors
from pipeline.checkpoints.files.shard_index import INDEX_FILE, SINGLE_FILE, inside, open_sharded
from pipeline.checkpoints.layouts.huggingface_config import (
    CONFIG_FILE,
    QUANTISATION,
    Description,
    describe,
    huggingface_config,
    published_architecture,
)
from pipeline.checkpoints.layouts.scales import attach_scales, with_scales
from pipeline.checkpoints.layouts.servers import server_notes
from pipeline.checkpoints.names import EMBEDDING, EXPERT_LOADS, shared_copies
from pipeline.checkpoints.other_formats import check_names
from pipeline.checkpoints.plausibility import check_experts, check_layers
from pipeline.checkpoints.slices import same_numbers
from pipeline.checkpoints.stored_tensor import CheckpointSource, StoredTensor
from pipeline.checkpoints.writing.plan import ConversionOptions, Plan, PlannedFile
from pipeline.checkpoints.writing.safetensors_writer import safetensors_file
from pipeline.checkpoints.writing.tensors import PlannedTensor, planned
from pipeline.checkpoints.writing.text import json_file

log = logging.getLogger(__name__)

NAME = "huggingface"
LOOKS_FOR = f"a folder with {CONFIG_FILE} and {INDEX_FILE} or {SINGLE_FILE}"
# A statistic that the published layout has no place for: kept beside it, so that nothing is lost.
EXPERT_LOADS_FILE = "expert_loads.safetensors"
SCALE = "weight_scale_inv"


def recognises(path: Path) -> bool:
    """Whether a folder holds safetensors as `transformers` names them."""
    return (path / INDEX_FILE).exists() or (path / SINGLE_FILE).exists()


def names(config: DecoderConfig) -> Mapping[str, str]:
    """What the layout calls tensors, where it is not what published names say: nowhere."""
    return {}


def open_source(path: Path, options: OpenOptions) -> CheckpointSource:
    """Open an export; tensors stay on the disk.

    Copies of the embedding and the head in prediction modules are compared with them; what is a copy is left out, and
    what is not, as in modules grafted from another training, is kept apart (`separate`).

    Raises:
        FileNotFoundError: when a file of it is absent.
        DamagedCheckpointError: when it is incomplete or damaged, or its files disagree.
    """
    described = describe(path)
    is_dropped = partial(in_dropped_module, config=described.config, drop=options.drop)
    shards = open_sharded(path, lambda name: not is_dropped(name))
    check_names(shards.tensors, path)
    tensors = attach_scales(shards.tensors, SCALE)
    check_layers(described.config, len(tensors), path)
    config, note = _with_modules_found(described, tensors, path, options)
    check_experts(config, len(tensors), path)
    if (path / EXPERT_LOADS_FILE).exists():
        loads = open_safetensors(inside(path, EXPERT_LOADS_FILE, path))[0]
        tensors |= {name: stored for name, stored in loads.items() if not is_dropped(name)}
    separate = {}
    for copy, original in shared_copies(config).items():
        if copy in tensors and original in tensors:
            copied = tensors.pop(copy)
            if not same_numbers(copied, tensors[original]):
                separate[copy] = copied
    source = complete(tensors, config, NAME, path, options)
    notes = (*described.notes, *note)
    for text in (*notes, *shards.doubts):
        log.warning("%s", text)
    dropped = tuple(name for name in shards.left_out if not name.endswith(SCALE))
    return replace(
        source,
        dropped=dropped,
        separate=separate,
        quantisation=described.quantisation,
        notes=notes,
        doubts=shards.doubts,
    )


def _with_modules_found(
    described: Description, tensors: Mapping[str, StoredTensor], path: Path, options: OpenOptions
) -> tuple[DecoderConfig, tuple[str, ...]]:
    """The architecture with as many prediction modules as there are tensors of, and a word about it.

    `transformers` always writes `num_nextn_predict_layers` and never writes a module; others write modules and leave
    the field out.
    """
    config = described.config
    if "mtp" in options.drop:
        return config, ()
    layers = {int(layer[1]) for name in tensors if (layer := re.match(r"model\.layers\.(\d{1,9})\.", name))}
    n_found = next(depth for depth in itertools.count() if config.num_hidden_layers + depth not in layers)
    n_told = config.num_nextn_predict_layers
    if n_found == n_told or (n_found > n_told and described.knows_modules):
        return config, ()
    told = f"tells of {n_told} prediction modules" if described.knows_modules else "does not tell of prediction modules"
    note = f"{path / CONFIG_FILE} {told}; the files hold tensors of {n_found}, and so many there are."
    return replace(config, num_nextn_predict_layers=n_found), (note,)


def plan(source: CheckpointSource, options: ConversionOptions) -> Plan:
    """Plan the shards, their index, config.json, and what lies beside them.

    Raises:
        ValueError: when the layout cannot express the decoder.
    """
    try:
        described = huggingface_config(source.config, options.special_tokens, _wide_type(source))
    except ValueError as error:
        raise ValueError(
            f"{error} As it is, layout=lightning converts it, and `python -m pipeline.evaluate "
            "evaluate.weights=trained` evaluates the training checkpoint."
        ) from error
    in_fp8 = any(stored.dtype == E4M3 for stored in source.tensors.values())
    if in_fp8:
        described["quantization_config"] = QUANTISATION | _scale_format(source, options)
    weights = {name: stored for name, stored in source.tensors.items() if not name.endswith(EXPERT_LOADS)}
    loads = [planned(name, stored) for name, stored in source.tensors.items() if name.endswith(EXPERT_LOADS)]
    copies = {copy: original for copy, original in shared_copies(source.config).items() if original in weights}
    copies = {copy: original for copy, original in copies.items() if copy not in source.separate}
    weights |= {copy: weights[original] for copy, original in copies.items()} | dict(source.separate)
    files = list(_sharded(weights, options.shard_bytes))
    files += [safetensors_file(EXPERT_LOADS_FILE, loads)] if loads else []
    files.append(json_file(CONFIG_FILE, described))
    files.append(json_file("generation_config.json", {"do_sample": True, **options.special_tokens}))
    notes = _grouping_note(source.config) + server_notes(source.config, in_fp8)
    if source.config.scoring_func != "sigmoid":
        notes += ("transformers scores experts by sigmoid whatever config.json says; load this export elsewhere.",)
    return Plan(
        tuple(files),
        is_folder=True,
        n_tensors=len(weights) + len(loads),
        copies=tuple((original, copy) for copy, original in copies.items()),
        notes=notes,
    )


def _grouping_note(config: DecoderConfig) -> tuple[str, ...]:
    if published_architecture(config).n_group == config.n_group:
        return ()
    return (
        f"The {config.n_group} groups of one expert each are written as one group of all: the same experts are chosen, "
        "and the published code asks every group for its two best.",
    )


def _scale_format(source: CheckpointSource, options: ConversionOptions) -> dict[str, Any]:
    """How FP8 factors were rounded (`ue8m0`: to powers of two), where they stay as they are."""
    told = source.quantisation or {}
    return {"scale_fmt": told["scale_fmt"]} if options.dtype == "keep" and "scale_fmt" in told else {}


def _sharded(weights: Mapping[str, StoredTensor], shard_bytes: int) -> Iterator[PlannedFile]:
    """The shards and their index; a tensor and its blocks' factors stay together."""
    shards: list[list[PlannedTensor]] = [[]]
    size = 0
    for name, stored in weights.items():
        group = with_scales(name, stored, SCALE)
        n_bytes = sum(tensor.n_bytes for tensor in group)
        if size and size + n_bytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1] += group
        size += n_bytes
    weight_map: dict[str, str] = {}
    for index, shard in enumerate(shards, start=1):
        file_name = f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= dict.fromkeys((tensor.name for tensor in shard), file_name)
        yield safetensors_file(file_name, shard)
    total = sum(tensor.n_bytes for shard in shards for tensor in shard)
    yield json_file(INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _wide_type(source: CheckpointSource) -> str:
    """What weights that are not FP8 are stored in."""
    return str(source.tensors[EMBEDDING].dtype).removeprefix("torch.")
