"""Prepared tokens and codecs with flipped bits, and with files that are cut, emptied, replaced or gone."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipeline.audio.codecs.configuration import MelRvqConfig
from pipeline.audio.codecs.mel_rvq import MelRvqCodec
from pipeline.audio.codecs.storage import load_codec, save_codec
from pipeline.entry.errors import sentence_of
from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.shards import finish_split, shard_path, write_shard
from pipeline.tokens.vocabulary import Vocabulary
from tests.drills.tally import Family, LostError, Tally

VOCABULARY = Vocabulary(n_codebooks=2, codebook_size=16)
CODEC = MelRvqConfig(
    sample_rate=8000, n_fft=256, hop_length=80, n_mels=16, f_min=0.0, f_max=4000.0, log_floor=1e-4, loudness_db=-23.0,
    n_codebooks=2, codebook_size=16, fit_frames=100, kmeans_iterations=2, griffin_lim_iterations=1,
    griffin_lim_momentum=0.9, stream_chunk_frames=4, stream_lookahead_frames=1, stream_context_frames=1,
)  # fmt: skip


def flip_a_bit(path: Path, chance: random.Random) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def cut(path: Path, chance: random.Random) -> None:
    """Keep the beginning of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(len(content))])


def empty(path: Path, chance: random.Random) -> None:
    """Leave nothing in a file."""
    path.write_bytes(b"")


def scramble(path: Path, chance: random.Random) -> None:
    """Put other bytes in a stretch of a file."""
    content = bytearray(path.read_bytes())
    start = chance.randrange(len(content))
    length = min(chance.randrange(1, 64), len(content) - start)
    content[start : start + length] = chance.randbytes(length)
    path.write_bytes(content)


def make_a_list(path: Path, chance: random.Random) -> None:
    """Put valid JSON of another shape in the place of a file."""
    path.write_text(chance.choice(["[]", "{}", "null", "3", '"text"', "[[1, 2]]"]))


def take_away(path: Path, chance: random.Random) -> None:
    """Remove a file."""
    path.unlink()


def make_a_folder(path: Path, chance: random.Random) -> None:
    """Put a folder in the place of a file."""
    path.unlink()
    path.mkdir()


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    flip_a_bit, flip_a_bit, scramble, cut, empty, make_a_list, take_away, make_a_folder,
)  # fmt: skip


def damage(root: Path, chance: random.Random, seconds: float) -> list[Tally]:
    """Damage prepared tokens and a codec, and read them: what is read is right, or is refused in one sentence."""
    tokens = Family("damaged tokens", chance, seconds / 2)
    _try(tokens, root / "tokens", _write_tokens, _read_tokens)
    codecs = Family("damaged codec", chance, seconds / 2)
    _try(codecs, root / "codec", _write_codec, _read_codec)
    return [tokens.tally, codecs.tally]


def _try(family: Family, folder: Path, write: Callable[[Path], None], read: Callable[[Path], bytes]) -> None:
    whole = folder.with_name(f"{folder.name}-whole")
    write(whole)
    expected = read(whole)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    while family.has_time or not family.tally.tries:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        spoil, path = family.random.choice(DAMAGES), family.random.choice(files)
        spoil(folder / path, family.random)
        family.attempt(f"{spoil.__name__} {path}", lambda: _require_whole_or_told(lambda: read(folder), expected))


def _require_whole_or_told(read: Callable[[], bytes], expected: bytes) -> None:
    try:
        found = read()
    except Exception as error:
        if sentence_of(error) is None:
            raise
        return
    if found != expected:
        raise LostError("other values are read, and nothing is said")


def _write_tokens(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(3):
        codes = [generator.integers(0, 16, (int(n), 2)) for n in generator.integers(1, 20, 4)]
        write_shard(shard_path(folder, number), [VOCABULARY.document(frames) for frames in codes], VOCABULARY)
    finish_split(folder)


def _read_tokens(folder: Path) -> bytes:
    dataset = TokenDataset.open(folder)
    return str(dataset.vocabulary).encode() + b"|".join(dataset[i].tobytes() for i in range(len(dataset)))


def _write_codec(folder: Path) -> None:
    torch.manual_seed(0)
    save_codec(MelRvqCodec.fit(CODEC, [torch.randn(16000) / 8], seed=0), folder)


def _read_codec(folder: Path) -> bytes:
    codec = load_codec(folder)
    fields, tensors = codec.state()
    return str(fields).encode() + b"".join(tensor.numpy().tobytes() for tensor in tensors.values())
