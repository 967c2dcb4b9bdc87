"""DeepSeek's own inference layout: a file for every rank, each with its share of the experts and of the matrices.

Names and splits are those of inference/convert.py and inference/model.py of DeepSeek-V3.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.precision.emulation import BLOCK, E4M3
from pipeline.checkpoints.architecture_match import OpenOptions, complete
from pipeline.checkpoints.files.safetensors_file import open_safetensors
from pipeline.checkpoints.files.shard_index import inside
from pipeline.checkpoints.layouts.deepseek_config import (
    ARCHITECTURE_FILE,
    CONFIG_FILE,
    architecture,
    deepseek_config,
    differences,
    read_config,
)
from pipeline.checkpoints.layouts.huggingface import EXPERT_LOADS_FILE
from pipeline.checkpoints.layouts.scales import attach_scales, with_scales
from pipeline.checkpoints.names import EXPERT_LOADS, published_parts
from pipeline.checkpoints.plausibility import check_experts, check_layers
from pipeline.checkpoints.slices import columns, joined, rows, same_numbers
from pipeline.checkpoints.stored_tensor import CheckpointSource, DamagedCheckpointError, StoredTensor
from pipeline.checkpoints.writing.plan import ConversionOptions, Plan
from pipeline.checkpoints.writing.safetensors_writer import safetensors_file
from pipeline.checkpoints.writing.tensors import PlannedTensor, planned
from pipeline.checkpoints.writing.text import json_file

NAME = "deepseek"
LOOKS_FOR = f"a folder with {CONFIG_FILE} and model0-mp1.safetensors or the like"
SCALE = "scale"
_FILE = re.compile(r"model(\d+)-mp(\d+)\.safetensors")
_EXPERT = re.compile(r".+\.mlp\.experts\.(\d+)\..+")
_WORDS = {
    "embed_tokens": "embed",
    "lm_head": "head",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn": "attn",
    "q_proj": "wq",
    "q_a_proj": "wq_a",
    "q_a_layernorm": "q_norm",
    "q_b_proj": "wq_b",
    "kv_a_proj_with_mqa": "wkv_a",
    "kv_a_layernorm": "kv_norm",
    "kv_b_proj": "wkv_b",
    "o_proj": "wo",
    "mlp": "ffn",
    "gate_proj": "w1",
    "down_proj": "w2",
    "up_proj": "w3",
    "e_score_correction_bias": "bias",
}
# Which side of a matrix the ranks share out: 0, what it yields; 1, what it takes in.
_SPLIT = {
    "embed_tokens": 0,
    "lm_head": 0,
    "q_proj": 0,
    "q_b_proj": 0,
    "kv_b_proj": 0,
    "o_proj": 1,
    "gate_proj": 0,
    "up_proj": 0,
    "down_proj": 1,
}
# Of what every rank has a copy, copies up to this size are compared: enough to tell files of two checkpoints apart.
COMPARED_BYTES = 2**20


def recognises(path: Path) -> bool:
    """Whether a folder holds files that are named by ranks."""
    return path.is_dir() and any(_FILE.fullmatch(file.name) for file in path.iterdir())


def names(config: DecoderConfig) -> dict[str, str]:
    """DeepSeek's names by the published ones."""
    return {
        name: ".".join(_WORDS.get(word, word) for word in name.removeprefix("model.").split("."))
        for name in published_parts(config)
        if not name.endswith(EXPERT_LOADS)
    }


def open_source(path: Path, options: OpenOptions) -> CheckpointSource:
    """Open the files of all ranks, and put their tensors together; they stay on the disk.

    Raises:
        FileNotFoundError: when a file is absent.
        DamagedCheckpointError: when it is incomplete or damaged, or its files disagree.
    """
    config = read_config(path)
    ranks = [attach_scales(open_safetensors(file)[0], SCALE) for file in _rank_files(path)]
    n_tensors = sum(len(rank) for rank in ranks)
    check_layers(config, n_tensors, path)
    check_experts(config, n_tensors, path)
    theirs = names(config)
    found = {}
    for name, their_name in theirs.items():
        holders = [rank[their_name] for rank in ranks if their_name in rank]
        if holders:
            found[name] = _together(name, holders, len(ranks))
    known = set(theirs.values())
    unknown = {name: stored for rank in ranks for name, stored in rank.items() if name not in known}
    if (path / EXPERT_LOADS_FILE).exists():
        found |= open_safetensors(inside(path, EXPERT_LOADS_FILE, path))[0]
    return complete(found | unknown, config, NAME, path, options)


def plan(source: CheckpointSource, options: ConversionOptions) -> Plan:
    """Plan a file for each of `n_model_parallel` ranks, the two configurations, and what lies beside them.

    Raises:
        ValueError: when the layout cannot express the decoder, or its matrices cannot be shared out so.
    """
    config, n_ranks = source.config, options.n_model_parallel
    if config.num_nextn_predict_layers:
        raise ValueError(
            f"{source.path} has {config.num_nextn_predict_layers} prediction modules, which DeepSeek's inference "
            "layout has no place for; set drop=[mtp] to leave them out."
        )
    is_fp8 = any(stored.dtype == E4M3 for stored in source.tensors.values())
    described = deepseek_config(config, "fp8" if is_fp8 else "bf16")
    if config.n_routed_segments % n_ranks:
        raise ValueError(f"{config.n_routed_segments} experts cannot be shared out to {n_ranks} ranks; take fewer.")
    theirs = names(config)
    weights = {name: stored for name, stored in source.tensors.items() if name in theirs}
    loads = [planned(name, stored) for name, stored in source.tensors.items() if name.endswith(EXPERT_LOADS)]
    files = [
        safetensors_file(f"model{rank}-mp{n_ranks}.safetensors", _of_rank(weights, theirs, config, rank, n_ranks))
        for rank in range(n_ranks)
    ]
    files += [safetensors_file(EXPERT_LOADS_FILE, loads)] if loads else []
    files += [json_file(CONFIG_FILE, described), json_file(ARCHITECTURE_FILE, architecture(config))]
    n_tensors = len(weights) + len(loads)
    return Plan(tuple(files), is_folder=True, n_tensors=n_tensors, notes=differences(config))


def _rank_files(path: Path) -> list[Path]:
    """The files of all ranks, in order.

    Raises:
        FileNotFoundError: when one is absent.
        DamagedCheckpointError: when files of several conversions lie beside each other.
    """
    matches = [match for file in path.iterdir() if (match := _FILE.fullmatch(file.name))]
    counts = sorted({int(match[2]) for match in matches})
    if len(counts) != 1:
        raise DamagedCheckpointError(
            f"{path} holds files of {' and '.join(map(str, counts)) or 'no'} ranks; keep those of one conversion."
        )
    if counts[0] > max(len(matches), 1):
        present = sorted(int(match[1]) for match in matches)
        raise DamagedCheckpointError(f"{path} holds the files of ranks {present} of {counts[0]}; fetch the others.")
    return [inside(path, f"model{rank}-mp{counts[0]}.safetensors", path) for rank in range(counts[0])]


def _split_side(name: str) -> int | None:
    """Which side of a tensor the ranks share out; None: every rank has all of it, or one rank alone."""
    if _EXPERT.fullmatch(name):
        return None
    return _SPLIT.get(name.split(".")[-2])


def _together(name: str, holders: Sequence[StoredTensor], n_ranks: int) -> StoredTensor:
    """A tensor of all ranks, from what each has of it."""
    n_expected = 1 if _EXPERT.fullmatch(name) else n_ranks
    if len(holders) != n_expected:
        files = ", ".join(holder.file.name for holder in holders)
        raise DamagedCheckpointError(
            f"{holders[0].file.parent}: {name} is in {len(holders)} files ({files}), but should be in {n_expected} of "
            f"{n_ranks}; they come from different conversions."
        )
    side = _split_side(name)
    if side is not None:
        try:
            return joined(holders, side)
        except ValueError as error:
            raise DamagedCheckpointError(
                f"{holders[0].file.parent}: the ranks' parts of {name} do not fit each other: {error}."
            ) from error
    for holder in holders[1:]:
        if holder.shape != holders[0].shape or (
            holder.n_bytes <= COMPARED_BYTES and not same_numbers(holder, holders[0])
        ):
            raise DamagedCheckpointError(
                f"{holder.file}: {name} is not what {holders[0].file.name} holds; the files come from different "
                "checkpoints."
            )
    return holders[0]


def _of_rank(
    weights: Mapping[str, StoredTensor], theirs: Mapping[str, str], config: DecoderConfig, rank: int, n_ranks: int
) -> list[PlannedTensor]:
    """What one rank's file holds."""
    n_experts = config.n_routed_segments // n_ranks
    tensors: list[PlannedTensor] = []
    for name, stored in weights.items():
        expert = _EXPERT.fullmatch(name)
        if expert is None or int(expert[1]) // n_experts == rank:
            tensors += with_scales(theirs[name], _share(name, stored, rank, n_ranks), SCALE)
    return tensors


def _share(name: str, stored: StoredTensor, rank: int, n_ranks: int) -> StoredTensor:
    """One rank's part of a tensor."""
    side = _split_side(name)
    if side is None or n_ranks == 1:
        return stored
    length, rest = divmod(stored.shape[side], n_ranks)
    if rest or (stored.scale is not None and length % BLOCK):
        unit = f"blocks of {BLOCK}" if stored.scale is not None else "equal parts"
        raise ValueError(
            f"{name} has a side of {stored.shape[side]}, which {n_ranks} ranks cannot share out in {unit}; "
            "take fewer (n_model_parallel), or another dtype."
        )
    cut = rows if side == 0 else columns
    return cut(stored, rank * length, (rank + 1) * length)
