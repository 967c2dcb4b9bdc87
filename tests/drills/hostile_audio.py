"""Audio files as strangers, broken disks and hostile people leave them, drawn from a seed.

python tests/drills/hostile_audio.py FOLDER [COUNT [SEED]] writes them into an empty folder, prepares them with the
stage itself, and prints for each kind: fault, tries, survived, lost.
"""

import csv
import io
import os
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

REPOSITORY = Path(__file__).parents[2]
RATE = 16000
# Format, subtype and extension of what is broken.
FORMATS = (
    ("WAV", "PCM_16", "wav"), ("WAV", "FLOAT", "wav"), ("WAV", "IMA_ADPCM", "wav"), ("RF64", "PCM_24", "wav"),
    ("FLAC", "PCM_16", "flac"), ("OGG", "VORBIS", "ogg"), ("OGG", "OPUS", "opus"), ("MP3", "MPEG_LAYER_III", "mp3"),
    ("AIFF", "PCM_16", "aiff"), ("AU", "PCM_16", "au"), ("CAF", "PCM_16", "caf"), ("W64", "PCM_16", "w64"),
)  # fmt: skip
NAMES = (
    "new\nline", "\u202ereversed", "\u2066isolated", "bell\a", "tab\t", "quote\"'`", "comma,;|", "<script>alert(1)",
    "%s%n", "$(reboot)", "-rf", "*?[a]", "spaces  ", "\ufeffmark", "e\u0301", "😀", "ａ", "x" * 240, "con", "nul",
)  # fmt: skip


@dataclass(frozen=True)
class Hostile:
    """One hostile file: its path relative to the folder as bytes, since a name may be no text; and its kind."""

    path: bytes
    kind: str


def speech(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    """Samples [S], syllables of gliding harmonics: no two seeds alike."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(110 + seed % 50 + 40 * np.sin(2 * np.pi * 0.7 * time + seed)) / rate
    harmonics = sum(np.sin(k * phase + k) / k for k in range(1, 8))
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return 0.1 * harmonics * np.maximum(np.sin(18 * time + seed), 0) + 1e-3 * noise


def encode(form: str, subtype: str, seed: int, seconds: float = 1.0, rate: int = RATE) -> bytes:
    """A whole file of speech."""
    file = io.BytesIO()
    soundfile.write(file, speech(seconds, seed, rate), rate, format=form, subtype=subtype)
    return file.getvalue()


def write_hostile_audio(folder: Path, count: int, seed: int, large: bool = False) -> list[Hostile]:
    """Write `count` hostile files into `folder`, of every kind as long as there are enough.

    Args:
        folder: where; it is made.
        count: how many.
        seed: what everything random is drawn from.
        large: whether files that decode to hours, or claim gigabytes, are among them.
    """
    rng = random.Random(seed)
    kinds = KINDS | (LARGE_KINDS if large else {})
    written = []
    for index in range(count):
        kind = list(kinds)[index % len(kinds)]
        place = folder / f"{kind.replace(' ', '_')}"
        place.mkdir(parents=True, exist_ok=True)
        path = kinds[kind](rng, os.fsencode(place / f"{index:03d}"), index)
        if path is not None:
            written.append(Hostile(os.path.relpath(path, os.fsencode(folder)), kind))
    return written


def _source(rng: random.Random, index: int) -> tuple[bytearray, bytes]:
    form, subtype, extension = rng.choice(FORMATS)
    return bytearray(encode(form, subtype, 1000 + index)), f".{extension}".encode()


def _put(path: bytes, content: bytes) -> bytes:
    with open(path, "wb") as file:
        file.write(content)
    return path


def _mangled(change: Callable[[random.Random, bytearray], bytes]) -> Callable[[random.Random, bytes, int], bytes]:
    def write(rng: random.Random, path: bytes, index: int) -> bytes:
        content, extension = _source(rng, index)
        return _put(path + extension, bytes(change(rng, content)))

    return write


def _cut(rng: random.Random, content: bytearray) -> bytes:
    return content[: rng.randrange(len(content))]


def _head_only(rng: random.Random, content: bytearray) -> bytes:
    return content[: rng.randrange(4, 100)]


def _overwrite(rng: random.Random, content: bytearray, filling: bytes, first: int = 0) -> bytes:
    at = rng.randrange(first, max(first + 1, len(content) - len(filling)))
    content[at : at + len(filling)] = filling
    return content


def _zeroed(rng: random.Random, content: bytearray) -> bytes:
    return _overwrite(rng, content, bytes(rng.randrange(1, 4096)))


def _flipped(rng: random.Random, content: bytearray) -> bytes:
    for _ in range(rng.randrange(1, 20)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return content


def _header_fuzzed(rng: random.Random, content: bytearray) -> bytes:
    for _ in range(rng.randrange(1, 6)):
        content[rng.randrange(min(128, len(content)))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return content


def _garbage(rng: random.Random, content: bytearray) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + rng.randbytes(rng.randrange(1, 8192)) + content[at:]


def _hole(rng: random.Random, content: bytearray) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.randrange(1, 4096) :]


def _doubled(rng: random.Random, content: bytearray) -> bytes:
    other, _ = _source(rng, rng.randrange(1000))
    return content + rng.choice((content, other))


def _noise(rng: random.Random, path: bytes, index: int) -> bytes:
    marks = (
        b"",
        b"RIFF\xff\xff\xff\xffWAVE",
        b"OggS\0",
        b"fLaC\0\0\0\x22",
        b"ID3\x04\0\0",
        b"\xff\xfb\x90\x00",
        b"caff",
    )
    extension = rng.choice(FORMATS)[2].encode()
    return _put(path + b"." + extension, rng.choice(marks) + rng.randbytes(rng.randrange(1, 30000)))


def _text(rng: random.Random, path: bytes, index: int) -> bytes:
    lines = rng.choice((b"not a sound\n", b"<html><body>404</body></html>", b"version https://git-lfs\n"))
    return _put(path + b".wav", lines * rng.randrange(1, 200))


def _empty(rng: random.Random, path: bytes, index: int) -> bytes:
    return _put(path + b"." + rng.choice(FORMATS)[2].encode(), b"")


def _strange_rate(rng: random.Random, path: bytes, index: int) -> bytes:
    rate = rng.choice((0, 1, 7, 3999, 47_999, 44_101, 191_999, 767_999, 768_001, 2**31 - 1, 2**32 - 1))
    content = bytearray(encode("WAV", "PCM_16", 1000 + index))
    content[24:28] = rate.to_bytes(4, "little")
    return _put(path + b".wav", content)


def _strange_channels(rng: random.Random, path: bytes, index: int) -> bytes:
    content = bytearray(encode("WAV", "PCM_16", 1000 + index))
    content[22:24] = rng.choice((0, 3, 255, 1024, 1025, 65535)).to_bytes(2, "little")
    return _put(path + b".wav", content)


def _strange_size(rng: random.Random, path: bytes, index: int) -> bytes:
    content = bytearray(encode("WAV", "PCM_16", 1000 + index))
    content[40:44] = rng.choice((0, 1, 3, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)).to_bytes(4, "little")
    return _put(path + b".wav", content)


def _not_finite(rng: random.Random, path: bytes, index: int) -> bytes:
    audio = speech(1.0, index)
    audio[rng.randrange(len(audio))] = rng.choice((np.nan, np.inf, -np.inf, 1e38))
    soundfile.write(os.fsdecode(path + b".wav"), audio, RATE, subtype="FLOAT")
    return path + b".wav"


def _pipe(rng: random.Random, path: bytes, index: int) -> bytes:
    os.mkfifo(path + b".wav")
    return path + b".wav"


def _device(rng: random.Random, path: bytes, index: int) -> bytes:
    os.symlink(rng.choice((b"/dev/zero", b"/dev/random", b"/dev/full", b"/dev/null", b"/dev/tty")), path + b".wav")
    return path + b".wav"


def _socket(rng: random.Random, path: bytes, index: int) -> bytes:
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as server:
        # The address has room for some hundred bytes: bind it from its own folder.
        os.chdir(os.path.dirname(path))
        try:
            server.bind(os.path.basename(path) + b".wav")
        finally:
            os.chdir(here)
    return path + b".wav"


def _loop(rng: random.Random, path: bytes, index: int) -> bytes:
    """A link to itself, beside a folder that leads to its own parent."""
    os.symlink(os.path.basename(path) + b".wav", path + b".wav")
    os.symlink(b"..", path + b".up")
    return path + b".wav"


def _dangling(rng: random.Random, path: bytes, index: int) -> bytes:
    os.symlink(rng.choice((b"gone.wav", b"/nowhere/x.wav", b"/proc/self/mem", b"/proc/kmsg")), path + b".wav")
    return path + b".wav"


def _closed(rng: random.Random, path: bytes, index: int) -> bytes:
    _put(path + b".wav", encode("WAV", "PCM_16", 1000 + index))
    os.chmod(path + b".wav", 0)
    return path + b".wav"


def _name(rng: random.Random, path: bytes, index: int) -> bytes:
    name = os.path.join(os.path.dirname(path), NAMES[index % len(NAMES)].encode() + str(index).encode()[-3:] + b".wav")
    return _put(name, encode("WAV", "PCM_16", 1000 + index))


def _undecodable(rng: random.Random, path: bytes, index: int) -> bytes | None:
    try:
        return _put(path + b"\xff\xfe\xe9.wav", encode("WAV", "PCM_16", 1000 + index))
    except OSError:  # some file systems take text only
        return None


def _antiphase(rng: random.Random, path: bytes, index: int) -> bytes:
    audio = speech(1.0, 1000 + index)
    soundfile.write(os.fsdecode(path + b".wav"), np.stack([audio, -audio], axis=1), RATE)
    return path + b".wav"


def _bomb(rng: random.Random, path: bytes, index: int) -> bytes:
    """A few hundred kilobytes of FLAC that decode to hours of silence."""
    rate, hours = rng.choice(((8000, 6), (48000, 1), (96000, 1)))
    with soundfile.SoundFile(os.fsdecode(path + b".flac"), "w", rate, 1, format="FLAC") as file:
        for _ in range(hours * 60):
            file.write(np.zeros(rate * 60, np.int16))
    return path + b".flac"


def _sparse(rng: random.Random, path: bytes, index: int) -> bytes:
    """A WAV file whose gigabytes are a hole in the disk."""
    content = bytearray(encode("WAV", "PCM_16", 1000 + index))
    content[40:44] = (2**32 - 100).to_bytes(4, "little")
    _put(path + b".wav", content)
    os.truncate(path + b".wav", 2**32 - 100)
    return path + b".wav"


KINDS: dict[str, Callable[[random.Random, bytes, int], bytes | None]] = {
    "cut off": _mangled(_cut), "head only": _mangled(_head_only), "zeroed": _mangled(_zeroed),
    "bits flipped": _mangled(_flipped), "header fuzzed": _mangled(_header_fuzzed), "garbage inside": _mangled(_garbage),
    "hole": _mangled(_hole), "two files in one": _mangled(_doubled), "noise": _noise, "text": _text, "empty": _empty,
    "strange rate": _strange_rate, "strange channels": _strange_channels, "strange size": _strange_size,
    "not finite": _not_finite, "pipe": _pipe, "device": _device, "socket": _socket, "link loop": _loop,
    "dangling link": _dangling, "closed": _closed, "name": _name, "undecodable name": _undecodable,
    "antiphase": _antiphase,
}  # fmt: skip
LARGE_KINDS = {"bomb": _bomb, "sparse": _sparse}


@dataclass(frozen=True)
class Outcome:
    """What became of the files of one kind: named in the manifest, or lost."""

    fault: str
    tries: int
    survived: int
    lost: int


def outcomes(written: list[Hostile], manifest: Path) -> list[Outcome]:
    """Hold the manifest of prepared data against what was written: each file has a row, and a rejected one a reason."""
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    tries, survived = Counter(hostile.kind for hostile in written), Counter()
    for hostile in written:
        row = rows.get(hostile.path.decode(errors="backslashreplace"))
        survived[hostile.kind] += row is not None and (row["status"] == "used" or bool(row["reason"]))
    return [Outcome(kind, n, survived[kind], n - survived[kind]) for kind, n in tries.items()]


def drill(folder: Path, count: int = 500, seed: int = 0, timeout: float = 1800) -> list[Outcome]:
    """Prepare `count` hostile files and some good ones with the stage itself; a hang or a failure loses all of them.

    Args:
        folder: an empty one, which files, cache and prepared data go to.
        count: how many hostile files.
        seed: what they are drawn from.
        timeout: the seconds after which the stage counts as hanging.
    """
    written = write_hostile_audio(folder / "audio", count, seed, large=True)
    for index in range(30):
        _put(os.fsencode(folder / "audio" / f"good_{index}.wav"), encode("WAV", "PCM_16", index, 2.0))
    command = [
        sys.executable, "-m", "pipeline.prepare_data", "data=folder", f"data.root={folder / 'audio'}", "codec=mu_law",
        "data.screening.max_rejected_fraction=1", f"paths.prepared={folder / 'prepared'}",
        f"paths.cache={folder / 'cache'}", f"hydra.run.dir={folder / 'hydra'}",
    ]  # fmt: skip
    try:
        subprocess.run(command, cwd=REPOSITORY, check=True, timeout=timeout, stderr=subprocess.DEVNULL)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return [Outcome(kind, n, 0, n) for kind, n in Counter(hostile.kind for hostile in written).items()]
    return outcomes(written, folder / "prepared" / "manifest.csv")


if __name__ == "__main__":
    for outcome in drill(Path(sys.argv[1]), *map(int, sys.argv[2:])):
        print(f"{outcome.fault:20} {outcome.tries:4} {outcome.survived:4} {outcome.lost:4}")
