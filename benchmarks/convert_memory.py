"""Memory and time that a conversion takes: DeepSeek-V3 with all its experts, converted from a sparse file of zeros.

    python -m benchmarks.convert_memory [--layers 4] [--experts 16] [--random] [--source fp8] [--dtype bfloat16]

Writes the preset's tensors as holes, which take no room on the disk, and converts them in a fresh process; the target
is sparse as well. Prints one JSON line: bytes converted, the largest tensor, the process's memory before and at its
peak, seconds by the clock and of the processors, and megabytes (10⁶) of the target for each. Reading, rounding and
hashing cost what they do for other numbers; only the disk has less to do. `--random` writes numbers in place of holes.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import hydra
import torch

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.precision.emulation import BLOCK, E4M3
from pipeline.checkpoints.conversion import ConversionOptions, convert
from pipeline.checkpoints.files.shard_index import open_sharded
from pipeline.checkpoints.layouts.huggingface_config import CONFIG_FILE, huggingface_config
from pipeline.checkpoints.names import ALWAYS_FP32, EXPERT_LOADS, is_linear, published_parts
from pipeline.checkpoints.registry import open_checkpoint
from pipeline.configuration.composed import CONF
from pipeline.plumbing.files import write_json

SHARD_BYTES = 4 * 2**30
TYPES = {"F32": 4, "BF16": 2, "F8_E4M3": 1}


def preset(n_layers: int) -> DecoderConfig:
    """conf/model/deepseek_v3.yaml, with so many layers."""
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        model = hydra.compose("config", ["model=deepseek_v3"]).model
    names = {field.name for field in fields(DecoderConfig)}
    config = DecoderConfig(**{name: value for name, value in model.items() if name in names})
    n_dense = min(config.first_k_dense_replace, n_layers)
    return replace(config, num_hidden_layers=n_layers, first_k_dense_replace=n_dense)


def write_sparse(folder: Path, config: DecoderConfig, source: str) -> None:
    """Write an export of zeros in the Hugging Face layout: headers, and holes.

    Args:
        folder: where; must exist.
        config: the architecture.
        source: `fp8` as published, or `bf16`.
    """
    shards: list[dict[str, tuple[str, tuple[int, ...]]]] = [{}]
    size = 0
    for name, part in published_parts(config).items():
        if name.endswith(EXPERT_LOADS):
            continue
        kind = "F32" if name.endswith(ALWAYS_FP32) else "F8_E4M3" if source == "fp8" and is_linear(name) else "BF16"
        group = {name: (kind, part.shape)}
        if kind == "F8_E4M3":
            group[f"{name}_scale_inv"] = ("F32", tuple(-(-side // BLOCK) for side in part.shape))
        n_bytes = sum(stored_bytes(*entry) for entry in group.values())
        if size and size + n_bytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1] |= group
        size += n_bytes
    weight_map = {}
    for index, shard in enumerate(shards, start=1):
        file_name = f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= dict.fromkeys(shard, file_name)
        write_holes(folder / file_name, shard)
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    write_json(folder / CONFIG_FILE, huggingface_config(config, {}, "bfloat16"))


def stored_bytes(kind: str, shape: tuple[int, ...]) -> int:
    return TYPES[kind] * torch.Size(shape).numel()


def write_holes(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    header, end = {}, 0
    for name, (kind, shape) in tensors.items():
        start, end = end, end + stored_bytes(kind, shape)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.truncate(8 + len(encoded) + end)


def fill(folder: Path) -> None:
    """Write random numbers into the holes of an export."""
    generator = torch.Generator().manual_seed(0)
    for stored in open_sharded(folder).tensors.values():
        if stored.dtype == E4M3:
            # All that are positive, NaN left out.
            numbers = torch.randint(127, stored.shape, dtype=torch.uint8, generator=generator).view(E4M3)
        else:
            numbers = torch.randn(stored.shape, generator=generator).mul_(0.02).to(stored.dtype)
        offset = stored.read.args[1]  # type: ignore[attr-defined]
        with stored.file.open("r+b") as file:
            file.seek(offset)
            file.write(numbers.view(-1).view(torch.uint8).numpy().data)


def memory(field: str) -> int:
    """A line of /proc/self/status, in bytes: `VmRSS` is the memory now, `VmHWM` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def convert_and_measure(source: Path, target: Path, layout: str, dtype: str) -> dict[str, Any]:
    """Convert, in a process of its own, and say what it took."""
    torch.set_num_threads(1)
    before, start, used = memory("VmRSS"), time.perf_counter(), time.process_time()
    drop = ("mtp",) if layout == "deepseek" else ()
    opened = open_checkpoint(source)
    largest = max(opened.tensors.values(), key=lambda stored: stored.n_bytes).n_bytes
    conversion = convert(opened, target, layout, ConversionOptions(dtype=dtype, drop=drop))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - used
    return {
        "source_bytes": sum(file.stat().st_size for file in source.glob("*.safetensors")),
        "target_bytes": conversion.n_bytes,
        "tensors": conversion.n_tensors,
        "files": len(conversion.files),
        "largest_tensor_bytes": largest,
        "memory_before_bytes": before,
        "peak_memory_bytes": memory("VmHWM"),
        "target_disk_bytes": sum(file.stat().st_blocks * 512 for file in target.iterdir()),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "megabytes_per_second": round(conversion.n_bytes / 1e6 / seconds),
        "megabytes_per_cpu_second": round(conversion.n_bytes / 1e6 / cpu_seconds),
    }


def measure(
    config: DecoderConfig, source: str, layout: str, dtype: str, folder: Path, is_random: bool = False
) -> dict[str, Any]:
    """Write the source, and convert it in a fresh process.

    Args:
        config: the architecture.
        source: `fp8` or `bf16`.
        layout: of the target.
        dtype: of the target.
        folder: where to write both; needs room for little more than their headers, or for both where they are random.
        is_random: numbers in place of holes.
    """
    (folder / "source").mkdir()
    write_sparse(folder / "source", config, source)
    if is_random:
        fill(folder / "source")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        result = pool.submit(convert_and_measure, folder / "source", folder / "target", layout, dtype).result()
    return {"layers": config.num_hidden_layers, "source": source, "layout": layout, "dtype": dtype, **result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=61)
    parser.add_argument("--experts", type=int, default=256, help="a layer, a multiple of 16")
    parser.add_argument("--random", action="store_true", help="numbers in place of holes")
    parser.add_argument("--source", choices=("fp8", "bf16"), default="fp8")
    parser.add_argument("--dtype", choices=("keep", "bfloat16", "float32", "fp8"), default="bfloat16")
    parser.add_argument(
        "--layout", choices=("huggingface", "deepseek", "lightning", "distributed"), default="huggingface"
    )
    parser.add_argument("--folder", type=Path, help="of the file system to write to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        config = replace(preset(arguments.layers), n_routed_experts=arguments.experts)
        options = (arguments.source, arguments.layout, arguments.dtype)
        print(json.dumps(measure(config, *options, Path(name), arguments.random)))


if __name__ == "__main__":
    main()
