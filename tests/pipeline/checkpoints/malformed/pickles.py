"""Pickles that would run code, or fill the memory, wherever a checkpoint keeps a pickle."""

import collections
import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from tests.pipeline.checkpoints.malformed.corpus import Case, Pristine

CHUNK = "__0_1.distcp"


class Call:
    """Pickles as a call."""

    def __init__(self, function: str, *arguments: Any) -> None:
        self.module, _, self.function = function.rpartition(".")
        self.arguments = arguments


def bombs(canary: Path) -> dict[str, bytes]:
    """Pickles by what they would do; those that run code create `canary`."""
    touch = f"touch {canary}"
    script = f"open({str(canary)!r}, 'w').close()"
    calls = {
        "os.system": Call("posix.system", touch),
        "os.popen": Call("os.popen", touch),
        "subprocess": Call("subprocess.check_output", ["touch", str(canary)]),
        "eval": Call("builtins.eval", script),
        "exec": Call("builtins.exec", script),
        "open": Call("builtins.open", str(canary), "w"),
        "getattr": Call("builtins.getattr", "", "format"),
        "pathlib.touch": Call("pathlib.Path.touch", str(canary)),
        "runpy": Call("runpy._run_code", script, {}),
        "torch.load": Call("torch.load", str(canary)),
        "torch.hub": Call("torch.hub.load", "owner/name", "model"),
        "pickle.loads": Call("pickle.loads", _encode(Call("posix.system", touch))),
        "an import": Call("antigravity.geohash", 1.0, 2.0, b"x"),
        "numpy": Call("numpy.load", str(canary)),
        "code": Call("types.CodeType", 0),
    }
    encoded = {name: _encode(call) for name, call in calls.items()}
    encoded["os.system, in a state"] = (
        _encode(Call("collections.OrderedDict"))[:-1] + _encode(calls["os.system"])[2:-1] + b"b."
    )
    encoded["os.system, by a persistent id"] = (
        b"\x80\x02(X\x07\x00\x00\x00storage" + _encode(calls["os.system"])[2:-1] + b"tQ."
    )
    encoded["a huge array"] = b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x40\x85R."
    encoded["a memo of billions"] = b"\x80\x02}r\xff\xff\xff\xff."
    encoded["a long text that is not there"] = b"\x80\x02X\xff\xff\xff\x7fabc."
    encoded["a loop"] = b"\x80\x02]q\x00h\x00a."
    encoded["marks without end"] = b"\x80\x02" + b"(" * 3_000 + b"."
    encoded["lists without end"] = b"\x80\x02" + b"]" * 3_000 + b"a" * 2_999 + b"."
    doubled = b"".join(b"h" + bytes([level]) + b"\x86q" + bytes([level + 1]) for level in range(60))
    encoded["tuples of twice the same tuple"] = b"\x80\x02}))\x86q\x00" + doubled + b"Ns."
    encoded["nothing"] = b""
    encoded["None"] = b"\x80\x02N."
    encoded["text"] = b"\x80\x02X\x02\x00\x00\x00hi."
    encoded["a pop of nothing"] = b"\x80\x02000."
    return encoded


def _encode(value: Any) -> bytes:
    """Protocol 2, with calls of anything."""
    if not isinstance(value, Call):
        return pickle.dumps(value, protocol=2)
    arguments = b"".join(_encode(argument)[2:-1] for argument in value.arguments)
    name = f"c{value.module}\n{value.function}\n".encode()
    return b"\x80\x02" + name + b"(" + arguments + b"tR."


def pickles(pristine: Pristine, canary: Path) -> Iterator[Case]:
    """Every bomb in every place where a pickle is opened."""
    places: dict[str, Callable[[bytes, Path], Path]] = {
        "a zip": lambda bomb, folder: _in_archive(pristine.folder / "legacy", folder / "weights.pt", bomb),
        "a plain pickle": lambda bomb, folder: _write(folder / "weights.pt", bomb),
        "an old file": lambda bomb, folder: _write(folder / "weights.pt", _old_file(bomb)),
        "meta.pt": lambda bomb, folder: _in_file(pristine, folder, "meta.pt", bomb),
        ".metadata": lambda bomb, folder: _in_file(pristine, folder, ".metadata", bomb),
        "a chunk": lambda bomb, folder: _in_file(pristine, folder, CHUNK, bomb),
    }
    for name, bomb in bombs(canary).items():
        for place, writer in places.items():

            def write(folder: Path, bomb: bytes = bomb, writer: Callable[[bytes, Path], Path] = writer) -> Path:
                return writer(bomb, folder)

            yield Case(f"pickle: {name}, in {place}", write)


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _old_file(bomb: bytes) -> bytes:
    """As torch wrote files before 1.6: four pickles, and the numbers."""
    file = io.BytesIO()
    torch.save(collections.OrderedDict(), file, _use_new_zipfile_serialization=False)
    whole = file.getvalue()
    empty = pickle.dumps(collections.OrderedDict(), protocol=2)
    assert empty in whole
    return whole.replace(empty, bomb) + struct.pack("<q", 0)


def _in_archive(source: Path, target: Path, bomb: bytes) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for record in old.infolist():
            content = bomb if record.filename.endswith("/data.pkl") else old.read(record)
            new.writestr(record.filename, content)
    return target


def _in_file(pristine: Pristine, folder: Path, name: str, bomb: bytes) -> Path:
    path = pristine.put("distributed", folder, with_checksums=False)
    if name == ".metadata":
        (path / name).write_bytes(bomb)
        return path
    (path / name).unlink()
    _in_archive(pristine.folder / "distributed" / name, path / name, bomb)
    if name == CHUNK:
        metadata = pickle.loads((path / ".metadata").read_bytes())
        for place in metadata.storage_data.values():
            if place.relative_path == name:
                place.length = (path / name).stat().st_size
        (path / ".metadata").write_bytes(pickle.dumps(metadata))
    return path
