"""Audio files as nobody should write them: damaged, lying, endless, and no files at all."""

import io
import os
import random
import shutil
from pathlib import Path

import numpy as np
import soundfile

from pipeline.audio.configuration import ScreeningConfig
from pipeline.audio.corpora.configuration import FolderConfig
from pipeline.audio.corpora.folder import FolderCorpus
from pipeline.preparation.inspection import inspect_corpus
from tests.drills.injection import Fault, in_another_process
from tests.drills.tally import Family, LostError, Tally

FORMATS = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III", "aiff": "PCM_24"}
SCREENING = ScreeningConfig(
    silence_rms=1e-4, max_clipped_fraction=0.01, max_rejected_fraction=1.0, damaged="skip", min_sample_rate=4000,
    max_sample_rate=768000, max_hours=24,
)  # fmt: skip
NAMES = (
    "a\nb.wav",
    "-rf.wav",
    "$(x).flac",
    "<b>.ogg",
    "%s%n.wav",
    "ü\u202e.mp3",
    " .wav",
    "'\".wav",
    "a" * 200 + ".wav",
)
SECONDS_A_FILE = 30.0


def recordings(root: Path, chance: random.Random, seconds: float) -> list[Tally]:
    """Survey one hostile file after another: used or refused by name, in bounded time."""
    family = Family("hostile audio file", chance, seconds)
    whole = _whole_files()
    while family.has_time or not family.tally.tries:
        folder = root / "audio"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        what = _hostile(folder, whole, chance)
        family.attempt(what, lambda folder=folder: _survey(folder))
    return [family.tally]


def _whole_files() -> dict[str, bytes]:
    times = np.arange(8000) / 16000
    speech = 0.2 * np.sin(2 * np.pi * 200 * times) * (1 + np.sin(2 * np.pi * 4 * times))
    files = {}
    for suffix, subtype in FORMATS.items():
        buffer = io.BytesIO()
        soundfile.write(buffer, speech, 16000, format=suffix.upper(), subtype=subtype)
        files[suffix] = buffer.getvalue()
    return files


def _hostile(folder: Path, whole: dict[str, bytes], chance: random.Random) -> str:
    """Put one hostile thing into the folder, and say what it is."""
    suffix = chance.choice(sorted(whole))
    content, path = bytearray(whole[suffix]), folder / f"a.{suffix}"
    kind = chance.choice(
        [
            "flip",
            "header",
            "cut",
            "insert",
            "double",
            "zeros",
            "suffix",
            "noise",
            "fifo",
            "device",
            "loop",
            "name",
            "folder",
        ]
    )
    match kind:
        case "flip":
            for _ in range(chance.randint(1, 30)):
                content[chance.randrange(len(content))] = chance.randrange(256)
        case "header":
            at = chance.randrange(min(120, len(content) - 4))
            content[at : at + 4] = chance.choice(
                [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", chance.randbytes(4)]
            )
        case "cut":
            del content[chance.randrange(len(content)) :]
        case "insert":
            at = chance.randrange(len(content))
            content[at:at] = chance.randbytes(chance.randint(1, 5000))
        case "double":
            content += bytes(content)
        case "zeros":
            at = chance.randrange(len(content))
            content[at:] = bytes(len(content) - at)
        case "suffix":
            path = folder / f"a.{chance.choice([s for s in whole if s != suffix])}"
        case "noise":
            content = bytearray(chance.randbytes(chance.randint(0, 20_000)))
        case "name":
            path = folder / chance.choice(NAMES)
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to(chance.choice(["/dev/zero", "/dev/null", "/dev/urandom"]))
        case "loop":
            path.symlink_to(path)
        case "folder":
            path.mkdir()
    if kind not in ("fifo", "device", "loop", "folder"):
        path.write_bytes(content)
    # Something that can be used lies beside.
    (folder / "whole.wav").write_bytes(whole["wav"])
    return f"{kind} {path.name!r}"


def _survey(folder: Path) -> None:
    def inspect() -> None:
        corpus = FolderCorpus(FolderConfig(folder, "none", None))
        found = inspect_corpus(corpus, corpus.recordings(), 0.05, SCREENING, 1)
        for inspection in found:
            if not inspection.reason and not 0 < inspection.seconds < 60:
                raise AssertionError(f"{inspection.seconds} s are read of half a second")

    ended = in_another_process(inspect, folder, Fault(), SECONDS_A_FILE)
    if ended.status not in (0, 2):
        raise LostError(f"it ended with {ended.status}: {ended.said}")
