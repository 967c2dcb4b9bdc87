"""Torch's archives that are not laid out as torch.save does it."""

import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from tests.pipeline.checkpoints.malformed.corpus import Case, Pristine, flip, legacy, save_training

Records = dict[str, bytes]


def archives(pristine: Pristine) -> Iterator[Case]:
    """Single files, their records changed; torch itself would open most of them."""
    for name, change in RECORDS.items():
        for source in ("legacy", "trained.ckpt"):

            def write(folder: Path, source: str = source, change: Callable[[Records], Any] = change) -> Path:
                return _rewrite(pristine.folder / source, folder / source, change)

            yield Case(f"archive {source}: {name}", write, is_good=name == "no change")
    for name, method in {
        "deflated": zipfile.ZIP_DEFLATED,
        "in bzip2": zipfile.ZIP_BZIP2,
        "LZMA": zipfile.ZIP_LZMA,
    }.items():
        yield Case(
            f"archive: {name}",
            lambda folder, method=method: _rewrite(
                pristine.folder / "legacy", folder / "legacy", lambda records: None, method
            ),
        )
    yield Case(
        "archive: a bomb of zeros",
        lambda folder: _rewrite(
            pristine.folder / "legacy",
            folder / "legacy",
            lambda r: r.update({"legacy/data.pkl": bytes(2**28)}),
            zipfile.ZIP_DEFLATED,
        ),
    )
    yield from _flips(pristine)
    yield from _shapes(pristine)


def _rewrite(source: Path, target: Path, change: Callable[[Records], Any], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(source) as old:
        records = {"legacy/" + name.partition("/")[2]: old.read(name) for name in old.namelist()}
    # Torch works out where records lie, if this one says that they lie where it would put them.
    records.pop("legacy/.format_version", None)
    change(records)
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w", method) as new:
        # A record that is there twice is one of the cases.
        warnings.simplefilter("ignore")
        for name, content in records.items():
            new.writestr(name.rstrip("+"), content)
    return target


RECORDS: dict[str, Callable[[Records], Any]] = {
    "no change": lambda records: None,
    "no data.pkl": lambda records: records.pop("legacy/data.pkl"),
    "no numbers": lambda records: records.pop("legacy/data/3"),
    "fewer numbers": lambda records: records.update({"legacy/data/0": records["legacy/data/0"][:-4]}),
    "more numbers": lambda records: records.update({"legacy/data/0": records["legacy/data/0"] + bytes(4)}),
    "a big-endian machine": lambda records: records.update({"legacy/byteorder": b"big"}),
    "an unknown byte order": lambda records: records.update({"legacy/byteorder": b"\xff\xfe"}),
    "an alignment of nothing": lambda records: records.update({"legacy/.storage_alignment": b"0"}),
    "a negative alignment": lambda records: records.update({"legacy/.storage_alignment": b"-64"}),
    "an alignment of text": lambda records: records.update({"legacy/.storage_alignment": b"x"}),
    "data.pkl twice": lambda records: records.update({"legacy/data.pkl+": records["legacy/data.pkl"]}),
    "a record elsewhere": lambda records: records.update({"other/data/0": b""}),
    "a record that leads out": lambda records: records.update({"../data/0": b""}),
    "TorchScript": lambda records: records.update({"legacy/constants.pkl": pickle.dumps(())}),
    "nothing at all": lambda records: records.clear(),
}


def _flips(pristine: Pristine) -> Iterator[Case]:
    """Flips of bits in numbers and in the pickle, which nothing but the archive's own CRC-32 can find."""
    for source in ("legacy", "trained.ckpt"):
        with zipfile.ZipFile(pristine.folder / source) as archive:
            records = [r for r in archive.infolist() if "/data" in r.filename and r.file_size > 8]
        for record in records[:16]:

            def write(folder: Path, source: str = source, record: zipfile.ZipInfo = record) -> Path:
                path = pristine.put(source, folder)
                content = path.read_bytes()
                lengths = struct.unpack_from("<HH", content, record.header_offset + 26)
                flip(path, record.header_offset + 30 + sum(lengths) + record.file_size // 2, 1)
                return path

            yield Case(f"archive {source}: a bit of {record.filename} flipped", write)


class _Rebuilt:
    """Pickles as a tensor that claims a shape of its own."""

    def __init__(self, tensor: torch.Tensor, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.arguments = (tensor._typed_storage(), offset, shape, strides, False, {})

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


def _shapes(pristine: Pristine) -> Iterator[Case]:
    name = "layers.1.self_attn.kv_b_proj.weight"
    claims: dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]] = {
        "just what there is": (0, (8, 4), (4, 1)),
        "more than there is": (0, (8, 400), (400, 1)),
        "beyond the end": (20, (8, 4), (4, 1)),
        "one number a million times": (0, (2**20, 2**20), (0, 0)),
        "the right shape of one number": (0, (8, 4), (0, 0)),
        "an absurd shape of nothing": (0, (0, 2**62), (1, 1)),
        "negative strides": (8, (8, 4), (-4, 1)),
        "a negative offset": (-8, (8, 4), (4, 1)),
        "strides that overflow": (0, (8, 4), (2**62, 2**62)),
    }
    for kind, options in {"archive": {}, "old file": {"_use_new_zipfile_serialization": False}}.items():
        for claim, arguments in claims.items():

            def write(folder: Path, arguments: Any = arguments, options: dict[str, bool] = options) -> Path:
                content = legacy(pristine.weights)
                content["model"][f"module.{name}"] = _Rebuilt(pristine.weights[name].clone(), *arguments)
                torch.save(content, folder / "weights.pt", **options)
                return folder / "weights.pt"

            yield Case(f"{kind}: a tensor of {claim}", write, is_good=claim == "just what there is")
    for key, value in {"state_dict": {"x": 1}, "global_step": "many", "hyper_parameters": None}.items():
        yield Case(
            f"lightning: {key} is {value}",
            lambda folder, key=key, value=value: save_training(pristine.weights, folder / "x.ckpt", **{key: value}),
        )
