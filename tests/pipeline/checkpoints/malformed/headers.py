"""Safetensors files whose headers lie."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.pipeline.checkpoints.malformed.corpus import Case, Pristine

Header = dict[str, Any]
FIRST = "model.embed_tokens.weight"


def headers(pristine: Pristine) -> Iterator[Case]:
    """One file of an export, its header changed."""
    yield Case("header: no change", _writer(pristine, _encode), is_good=True)
    for name, change in ENTRIES.items():
        yield Case(
            f"header: {name}", _writer(pristine, lambda header, change=change: _encode(_changed(header, change)))
        )
    for name, content in RAW.items():
        yield Case(f"header: {name}", _writer(pristine, lambda header, content=content: content(header)))
    for name in HOSTILE_NAMES:
        yield Case(
            f"header: the name {name[:20]!r}",
            _writer(pristine, lambda header, name=name: _encode(_named(header, name))),
        )
    for length in (0, 1, 2**20, 2**31, 2**63, 2**64 - 1):
        yield Case(f"header: of the length {length}", _writer(pristine, lambda header: _encode(header), length))
    for name, change in list(ENTRIES.items())[:12]:

        def write(folder: Path, change: Callable[[Header], Any] = change) -> Path:
            path = pristine.put("deepseek", folder, with_checksums=False)
            _rewrite(path / "model0-mp1.safetensors", lambda header: _encode(_changed(header, change, "embed.weight")))
            return path

        yield Case(f"header: {name}, in a rank's file", write)


def _writer(pristine: Pristine, encode: Callable[[Header], bytes], length: int | None = None) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = pristine.single(folder)
        _rewrite(path / "model.safetensors", encode, length)
        return path

    return write


def _rewrite(file: Path, encode: Callable[[Header], bytes], length: int | None = None) -> None:
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = encode(json.loads(content[8:end]))
    file.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + content[end:])


def _encode(header: Header) -> bytes:
    return json.dumps(header).encode()


def _changed(header: Header, change: Callable[[Header], Any], first: str = FIRST) -> Header:
    """`change` gets the first tensor's entry; what it returns, if anything, takes its place."""
    replaced = change(header[first])
    return header | {first: replaced} if replaced is not None else header


def _named(header: Header, name: str) -> Header:
    return {name if key == FIRST else key: value for key, value in header.items()}


def _shift(entry: Header, begin: int, end: int) -> None:
    entry["data_offsets"] = [entry["data_offsets"][0] + begin, entry["data_offsets"][1] + end]


ENTRIES: dict[str, Callable[[Header], Any]] = {
    "an unknown type": lambda entry: entry.update(dtype="F4"),
    "a type that is a number": lambda entry: entry.update(dtype=16),
    "a type that is a list": lambda entry: entry.update(dtype=["BF16"]),
    "another type of the same width": lambda entry: entry.update(dtype="I16"),
    "a wider type": lambda entry: entry.update(dtype="F64"),
    "a shape of text": lambda entry: entry.update(shape="8,8"),
    "a negative side": lambda entry: entry.update(shape=[-8, -8]),
    "a side that is a fraction": lambda entry: entry.update(shape=[8.0, 8]),
    "a side that is true": lambda entry: entry.update(shape=[True, 64]),
    "a shape that overflows": lambda entry: entry.update(shape=[2**62, 4]),
    "a shape that wraps to its size": lambda entry: entry.update(shape=[2**61 + 1, 64]),
    "an absurd shape of no bytes": lambda entry: entry.update(shape=[0, 2**62], data_offsets=[0, 0]),
    "a shape of many dimensions": lambda entry: entry.update(shape=[1] * 100 + [8, 8]),
    "another shape": lambda entry: entry.update(shape=[4, 16]),
    "no shape": lambda entry: {"dtype": "BF16", "data_offsets": [0, 128]},
    "one field more": lambda entry: entry.update(file="/etc/passwd"),
    "an entry that is a list": lambda entry: [0, 128],
    "an entry that is null": lambda entry: "null",
    "offsets in reverse": lambda entry: entry["data_offsets"].reverse(),
    "negative offsets": lambda entry: _shift(entry, -128, -128),
    "offsets beyond the file": lambda entry: _shift(entry, 2**40, 2**40),
    "an overlap": lambda entry: _shift(entry, 2, 2),
    "a gap": lambda entry: _shift(entry, 64, 64),
    "an end too late": lambda entry: _shift(entry, 0, 2**50),
    "offsets of text": lambda entry: entry.update(data_offsets=["0", "128"]),
    "three offsets": lambda entry: entry.update(data_offsets=[0, 64, 128]),
    "offsets that are fractions": lambda entry: entry.update(data_offsets=[0.0, 128.0]),
    "huge offsets": lambda entry: entry.update(data_offsets=[10**400, 10**400 + 128]),
}
RAW: dict[str, Callable[[Header], bytes]] = {
    "no JSON": lambda header: b"\x00" * 64,
    "a list": lambda header: b"[1, 2, 3]",
    "a number": lambda header: b"12",
    "not UTF-8": lambda header: b'{"\xff\xfe": 1}',
    "nested without end": lambda header: b'{"a":' * 50_000,
    "nested lists": lambda header: b"[" * 50_000 + b"]" * 50_000,
    "a number of many digits": lambda header: b'{"a": ' + b"9" * 20_000 + b"}",
    "a name twice": lambda header: _encode(header)[:-1] + f', "{FIRST}": {json.dumps(header[FIRST])}}}'.encode(),
    "the same bytes twice": lambda header: _encode(header | {"copy.weight": header[FIRST]}),
    "metadata of text": lambda header: _encode(header | {"__metadata__": "pt"}),
    "metadata of numbers": lambda header: _encode(header | {"__metadata__": {"format": 1}}),
    "no tensors": lambda header: b"{}",
    "a tensor less": lambda header: _encode({name: entry for name, entry in header.items() if name != FIRST}),
    "JSON that ends too early": lambda header: _encode(header)[:-2],
}
HOSTILE_NAMES = ("", "../../escape", "a/b", "a\\b", "a\nb", "a b", "\x00", "\u202eweight", "x" * 100_000, "é")
