"""The published DeepSeek-V3 layout: config.json and sharded safetensors, as `transformers`, vLLM and SGLang read it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.precision.emulation import E4M3
from pipeline.checkpoints.architecture_match import OpenOptions, complete
from pipeline.checkpoints.files.safetensors_file import open_safetensors
from pipeline.checkpoints.files.shard_index import INDEX_FILE, SINGLE_FILE, inside, open_sharded
from pipeline.checkpoints.layouts.huggingface_config import (
    CONFIG_FILE,
    QUANTISATION,
    huggingface_config,
    read_config,
)
from pipeline.checkpoints.layouts.scales import attach_scales, with_scales
from pipeline.checkpoints.names import EMBEDDING, EXPERT_LOADS, shared_copies
from pipeline.checkpoints.plausibility import check_experts, check_layers
from pipeline.checkpoints.slices import same_numbers
from pipeline.checkpoints.stored_tensor import CheckpointSource, DamagedCheckpointError, StoredTensor
from pipeline.checkpoints.writing.plan import ConversionOptions, Plan, PlannedFile
from pipeline.checkpoints.writing.safetensors_writer import safetensors_file
from pipeline.checkpoints.writing.tensors import PlannedTensor, planned
from pipeline.checkpoints.writing.text import json_file

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

    Copies of the embedding and the head in prediction modules are compared with them, and left out.

    Raises:
        FileNotFoundError: when a file of it is absent.
        DamagedCheckpointError: when it is incomplete or damaged, or its files disagree.
    """
    config = read_config(path)
    tensors = attach_scales(open_sharded(path), SCALE)
    check_layers(config, len(tensors), path)
    check_experts(config, len(tensors), path)
    if (path / EXPERT_LOADS_FILE).exists():
        tensors |= open_safetensors(inside(path, EXPERT_LOADS_FILE, path))[0]
    for copy, original in shared_copies(config).items():
        if copy in tensors and original in tensors:
            _check_copy(copy, tensors.pop(copy), original, tensors[original])
    return complete(tensors, config, NAME, path, options)


def plan(source: CheckpointSource, options: ConversionOptions) -> Plan:
    """Plan the shards, their index, config.json, and what lies beside them.

    Raises:
        ValueError: when the layout cannot express the decoder.
    """
    described = huggingface_config(source.config, options.special_tokens, _wide_type(source))
    if any(stored.dtype == E4M3 for stored in source.tensors.values()):
        described["quantization_config"] = QUANTISATION
    weights = {name: stored for name, stored in source.tensors.items() if not name.endswith(EXPERT_LOADS)}
    loads = [planned(name, stored) for name, stored in source.tensors.items() if name.endswith(EXPERT_LOADS)]
    copies = {copy: original for copy, original in shared_copies(source.config).items() if original in weights}
    weights |= {copy: weights[original] for copy, original in copies.items()}
    files = list(_sharded(weights, options.shard_bytes))
    files += [safetensors_file(EXPERT_LOADS_FILE, loads)] if loads else []
    files.append(json_file(CONFIG_FILE, described))
    files.append(json_file("generation_config.json", {"do_sample": True, **options.special_tokens}))
    notes: tuple[str, ...] = ()
    if source.config.scoring_func != "sigmoid":
        notes = ("transformers scores experts by sigmoid whatever config.json says; load this export elsewhere.",)
    return Plan(
        tuple(files),
        is_folder=True,
        n_tensors=len(weights) + len(loads),
        copies=tuple((original, copy) for copy, original in copies.items()),
        notes=notes,
    )


def _check_copy(copy: str, copied: StoredTensor, original: str, tensor: StoredTensor) -> None:
    """A prediction module shares the decoder's embedding and head (arXiv 2412.19437, section 2.2)."""
    if not same_numbers(copied, tensor):
        raise DamagedCheckpointError(
            f"{copied.file}: {copy} is not {original}, which prediction modules share; the shards come from different "
            "checkpoints, or the model has embeddings of its own there, which the decoder has not."
        )


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
