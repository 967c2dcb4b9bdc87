"""Let torch's build for CUDA run on a machine without a GPU, without the 2 GB of CUDA's libraries that it links.

    python install/without_cuda.py lock requirements.lock          print the lock without what only a GPU needs
    python install/without_cuda.py stand-ins SITE_PACKAGES         let torch start without it

The package index has torch for Linux in its build for CUDA only, and that build does not start unless the libraries it
names are there, though nothing in them is called without a GPU. Small shared objects stand in for the large ones: they
define every name that torch looks up, and end the process if one is called. Installing the real packages overwrites
them (`make CUDA=1`).

Needs no package. The format is that of the System V ABI, "Object Files" and "Program Loading and Dynamic Linking".
"""

import mmap
import platform
import struct
import sys
from pathlib import Path
from typing import NamedTuple

# Packages that nothing calls without a GPU; cudart, cupti, cufile and nvshmem are small, and stay.
DROPPED = (
    "cuda-bindings", "cuda-pathfinder", "cuda-toolkit", "nvidia-cublas", "nvidia-cuda-nvrtc", "nvidia-cudnn-cu13",
    "nvidia-cufft", "nvidia-curand", "nvidia-cusolver", "nvidia-cusparse", "nvidia-cusparselt-cu13", "nvidia-nccl-cu13",
    "nvidia-nvjitlink", "nvidia-nvtx", "triton",
)  # fmt: skip
# Folder of site-packages/nvidia, name, and how its functions' names begin.
LIBRARIES = (
    ("cu13", "libcublas.so.13", ("cublas",)),
    ("cu13", "libcublasLt.so.13", ("cublasLt",)),
    ("cu13", "libcufft.so.12", ("cufft",)),
    ("cu13", "libcurand.so.10", ("curand",)),
    ("cu13", "libcusparse.so.12", ("cusparse",)),
    ("cudnn", "libcudnn.so.9", ("cudnn",)),
    ("cusparselt", "libcusparseLt.so.0", ("cusparseLt",)),
    ("nccl", "libnccl.so.2", ("nccl", "pnccl")),
)
# The machine's number in an ELF header, and an instruction that ends the process.
MACHINES = {"x86_64": (62, b"\x0f\x0b"), "aarch64": (183, b"\x00\x00\x00\x00")}
DYNSYM, STRTAB, UNDEFINED = 11, 5, 0
HEADER, SECTION, SYMBOL = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ")
SEGMENT, ENTRY = struct.Struct("<IIQQQQQQ"), struct.Struct("<qQ")
PAGE = 0x10000


class Part(NamedTuple):
    """Bytes of a file, and where they begin in it."""

    offset: int
    content: bytes


def undefined_names(library: Path) -> set[str]:
    """The names that a shared object leaves to others."""
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        header = HEADER.unpack_from(content)
        start, count = header[6], header[12]
        sections = [SECTION.unpack_from(content, start + SECTION.size * number) for number in range(count)]
        names = set()
        for section in sections:
            if section[1] != DYNSYM:
                continue
            strings = sections[section[6]][4]
            for offset in range(section[4], section[4] + section[5], SYMBOL.size):
                name, _, _, index, _, _ = SYMBOL.unpack_from(content, offset)
                if index == UNDEFINED and name:
                    names.add(content[strings + name : content.find(b"\0", strings + name)].decode())
        return names


def shared_object(name: str, functions: list[str], machine: str) -> bytes:
    """A shared object that defines these functions, in a version of its own name, as CUDA's libraries do."""
    number, trap = MACHINES[machine]
    strings = b"\0" + b"".join(text.encode() + b"\0" for text in (name, *functions))
    positions, position = [], len(name) + 2
    for function in functions:
        positions.append(position)
        position += len(function) + 1
    parts: dict[str, Part] = {}
    offset = HEADER.size + 3 * SEGMENT.size

    def put(key: str, content: bytes) -> None:
        nonlocal offset
        offset = -(-offset // 16) * 16
        parts[key] = Part(offset, content)
        offset += len(content)

    put("code", trap)
    n_symbols = len(functions) + 1
    symbols = [SYMBOL.pack(at, 0x12, 0, 1, parts["code"].offset, len(trap)) for at in positions]
    put("symbols", bytes(SYMBOL.size) + b"".join(symbols))
    # One bucket, in which every symbol leads to the next.
    chain = [0, *(number % n_symbols for number in range(2, n_symbols + 1))]
    put("hash", struct.pack(f"<{3 + n_symbols}I", 1, n_symbols, min(1, len(functions)), *chain))
    put("versions", struct.pack(f"<{n_symbols}H", 0, *[2] * len(functions)))
    put("definitions", b"".join(_version(index, name, last=index == 2) for index in (1, 2)))
    put("strings", strings)
    entries = [
        (14, 1), (4, parts["hash"].offset), (5, parts["strings"].offset), (6, parts["symbols"].offset),
        (10, len(strings)), (11, SYMBOL.size), (0x6FFFFFF0, parts["versions"].offset),
        (0x6FFFFFFC, parts["definitions"].offset), (0x6FFFFFFD, 2), (0, 0),
    ]  # fmt: skip
    put("dynamic", b"".join(ENTRY.pack(tag, value) for tag, value in entries))
    identity = b"\x7fELF" + bytes([2, 1, 1])
    content = bytearray(offset)
    content[: HEADER.size] = HEADER.pack(identity, 3, number, 1, 0, HEADER.size, 0, 0, 64, SEGMENT.size, 3, 64, 0, 0)
    at, size = parts["dynamic"].offset, len(parts["dynamic"].content)
    segments = [
        (1, 5, 0, 0, 0, offset, offset, PAGE),
        (2, 4, at, at, at, size, size, 8),
        (0x6474E551, 6, 0, 0, 0, 0, 0, 16),
    ]
    content[HEADER.size : HEADER.size + 3 * SEGMENT.size] = b"".join(SEGMENT.pack(*segment) for segment in segments)
    for part in parts.values():
        content[part.offset : part.offset + len(part.content)] = part.content
    return bytes(content)


def _version(index: int, name: str, last: bool) -> bytes:
    """A version's definition, the first of which is the file itself; both are named by the first string."""
    hashed = 0
    for character in name.encode():
        hashed = (hashed << 4) + character
        high = hashed & 0xF0000000
        hashed = (hashed ^ (high >> 24)) & ~high & 0xFFFFFFFF
    return struct.pack("<HHHHIII", 1, index == 1, index, 1, hashed, 20, 0 if last else 28) + struct.pack("<II", 1, 0)


def reduced_lock(lock: str) -> str:
    """The lock without `DROPPED`: the same pins and hashes otherwise."""
    kept, is_kept = [], True
    for line in lock.splitlines(keepends=True):
        if not line[0].isspace():
            is_kept = line.partition("==")[0] not in DROPPED
        if is_kept:
            kept.append(line)
    return "".join(kept)


def put_stand_ins(site_packages: Path) -> None:
    """Put a stand-in wherever torch would find a library that is not there."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in MACHINES:
        return
    names = set().union(*(undefined_names(path) for path in (site_packages / "torch" / "lib").glob("libtorch*.so")))
    for folder, name, beginnings in LIBRARIES:
        path = site_packages / "nvidia" / folder / "lib" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(shared_object(name, sorted(n for n in names if n.startswith(beginnings)), machine))


if __name__ == "__main__":
    task, place = sys.argv[1], Path(sys.argv[2])
    if task == "lock":
        print(reduced_lock(place.read_text(encoding="utf-8")), end="")
    else:
        put_stand_ins(place)
