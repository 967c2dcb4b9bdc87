"""Checkpoints that must be refused, each made from a good one by a function of its own."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_modules.model.decoder import Decoder
from pipeline.checkpoints.conversion import ConversionOptions, convert
from pipeline.checkpoints.registry import open_checkpoint
from tests.conftest import TINY

CONFIG = replace(
    TINY,
    vocab_size=8,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=1,
    q_lora_rank=4,
    kv_lora_rank=4,
    qk_nope_head_dim=4,
    qk_rope_head_dim=2,
    v_head_dim=4,
    intermediate_size=8,
    moe_intermediate_size=8,
    n_routed_experts=2,
    num_experts_per_tok=1,
    n_group=1,
    topk_group=1,
    max_position_embeddings=16,
    num_nextn_predict_layers=0,
)
FOLDERS = ("huggingface", "deepseek", "distributed")
CHECKSUMS = "checksums.json"


class Case(NamedTuple):
    """A malformed checkpoint: what it is, and how it is written into an empty folder, which returns its path.

    Of every kind there is one that is good: it shows that the others are not refused for the way they are written.
    """

    name: str
    write: Callable[[Path], Path]
    is_good: bool = False


class Pristine:
    """Good checkpoints of every layout, to be damaged.

    Attributes:
        weights: the decoder's own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        decoder = Decoder(CONFIG)
        decoder.initialize_weights()
        self.weights = {name: tensor.detach() for name, tensor in decoder.state_dict().items()}
        save_training(self.weights, folder / "trained.ckpt")
        source = open_checkpoint(folder / "trained.ckpt")
        for layout in (*FOLDERS, "lightning"):
            convert(source, folder / layout, layout, ConversionOptions(shard_bytes=2500))
        convert(source, folder / "single", "huggingface", ConversionOptions(dtype="fp8"))
        torch.save(legacy(self.weights), folder / "legacy")
        torch.save(legacy(self.weights), folder / "old", _use_new_zipfile_serialization=False)

    def put(self, layout: str, folder: Path, with_checksums: bool = True) -> Path:
        """A copy of a good checkpoint in `folder`."""
        source, target = self.folder / layout, folder / layout
        if source.is_dir():
            shutil.copytree(source, target)
            if not with_checksums:
                (target / CHECKSUMS).unlink()
            return target
        shutil.copy(source, target)
        beside = source.with_name(f"{layout}.{CHECKSUMS}")
        if with_checksums and beside.exists():
            shutil.copy(beside, folder)
        return target

    def single(self, folder: Path) -> Path:
        """An export in one file without an index, and without checksums that would find all damage."""
        path = self.put("single", folder, with_checksums=False)
        (path / "model-00001-of-00001.safetensors").rename(path / "model.safetensors")
        (path / "model.safetensors.index.json").unlink()
        return path

    def files(self, layout: str) -> list[str]:
        """The files of a layout that are read, by their names in its folder; the empty name is a single file."""
        path = self.folder / layout
        if path.is_file():
            return [""]
        names = sorted(file.name for file in path.iterdir() if file.name != "generation_config.json")
        chunks = [name for name in names if name.endswith(".distcp")]
        return [name for name in names if name not in chunks] + chunks[:3]


def save_training(weights: dict[str, Tensor], path: Path, config: dict[str, Any] | None = None, **others: Any) -> Path:
    """Write weights as Lightning saves those of a training."""
    values = {
        "state_dict": {f"decoder.{name}": tensor for name, tensor in weights.items()},
        "hyper_parameters": {"decoder": asdict(CONFIG) if config is None else config},
        "global_step": 1,
    }
    torch.save(values | others, path)
    return path


def legacy(weights: dict[str, Tensor]) -> dict[str, Any]:
    """As weights were saved in the past."""
    return {"model": {"module." + name.replace("o_proj", "out_proj"): tensor for name, tensor in weights.items()}}


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the object in a JSON file in place."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def whole(pristine: Pristine) -> Iterator[Case]:
    """Every layout, unharmed."""
    for layout in (*FOLDERS, "lightning", "legacy", "old"):
        yield Case(f"{layout}, whole", partial(pristine.put, layout), is_good=True)


def truncations(pristine: Pristine) -> Iterator[Case]:
    """Every file of every layout, cut off at several places."""
    for layout in (*FOLDERS, "lightning", "legacy", "old"):
        for name in pristine.files(layout):
            n_bytes = (pristine.folder / layout / name).stat().st_size
            # JSON ends with a newline that nobody misses.
            for length in sorted({0, 1, 9, n_bytes // 4, n_bytes // 2, n_bytes * 9 // 10, n_bytes - 2}):

                def write(folder: Path, layout: str = layout, name: str = name, length: int = length) -> Path:
                    path = pristine.put(layout, folder)
                    file = path / name
                    file.write_bytes(file.read_bytes()[:length])
                    return path

                yield Case(f"{layout}/{name} cut off at {length}", write)


def bit_flips(pristine: Pristine) -> Iterator[Case]:
    """Single bits of every file that has a checksum somewhere, in headers and in data."""
    generator = random.Random(0)
    for layout in (*FOLDERS, "lightning"):
        for name in pristine.files(layout):
            content = (pristine.folder / layout / name).read_bytes()
            n_early = min(len(content), 400)
            places = [generator.randrange(n_early) for _ in range(5)]
            places += [generator.randrange(len(content)) for _ in range(12 if name in ("", ".metadata") else 5)]
            for place in places:
                bit = generator.randrange(8)

                def write(
                    folder: Path, layout: str = layout, name: str = name, place: int = place, bit: int = bit
                ) -> Path:
                    path = pristine.put(layout, folder)
                    flip(path / name, place, bit)
                    return path

                yield Case(f"{layout}/{name} with bit {bit} of byte {place} flipped", write)


def flip(path: Path, place: int, bit: int = 6) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)
