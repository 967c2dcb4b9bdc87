"""How fast one process makes batches of prepared tokens: shards on a disk, packed into windows, collated.

    python -m benchmarks.loader [--batch-size 2] [--sequence-length 4096] [--mixture] [--longest 20]
                                [--millions 20] [--seconds 5]

Documents are random tokens of utterances of 1 to --longest seconds at 200 tokens a second, as of `mel_rvq_4x256`, in
shards as prepare-data writes them; with --mixture two corpora of them, in shares of 0.7 and 0.3. Batches are those of
the training itself, borders of documents included. Prints one JSON line: tokens a second, and a second of processor
time, which tells more on a machine that others use.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.command_line import count
from lightning_modules.data_module import Collate, OptimizerSteps, RankSlices, batches_of
from lightning_modules.mixture import MixedWindows, Mixture
from lightning_modules.packing import PackedDocuments
from pipeline.tokens.dataset import TokenDataset
from pipeline.tokens.shards import finish_split, shard_path, write_shard
from pipeline.tokens.vocabulary import Vocabulary

VOCABULARY = Vocabulary(4, 256)
FRAMES_PER_SECOND = 50
SHARD_DOCUMENTS = 128
LOOKAHEAD = 2
SHARES = {"large": 0.7, "small": 0.3}


def write_corpus(folder: Path, n_tokens: int, longest: int, seed: int) -> TokenDataset:
    """Random documents of `n_tokens` tokens together, of up to `longest` seconds."""
    generator = np.random.default_rng(seed)
    mean = (1 + longest) / 2 * FRAMES_PER_SECOND * VOCABULARY.n_codebooks
    n_shards = max(1, round(n_tokens / mean / SHARD_DOCUMENTS))
    for number in range(n_shards):
        frames = generator.integers(FRAMES_PER_SECOND, longest * FRAMES_PER_SECOND + 1, SHARD_DOCUMENTS)
        codes = [generator.integers(0, VOCABULARY.codebook_size, (n, VOCABULARY.n_codebooks)) for n in frames]
        write_shard(shard_path(folder, number), [VOCABULARY.document(one) for one in codes], VOCABULARY)
    finish_split(folder, n_shards)
    return TokenDataset.open(folder)


def open_windows(folder: Path, options: argparse.Namespace) -> PackedDocuments | MixedWindows:
    """The windows of a training."""
    n_tokens, length = options.millions * 10**6, options.sequence_length
    if not options.mixture:
        return PackedDocuments(write_corpus(folder, n_tokens, options.longest, seed=0), length, LOOKAHEAD, seed=1)
    corpora = {
        name: write_corpus(folder / name, round(share * n_tokens), options.longest, seed)
        for seed, (name, share) in enumerate(SHARES.items())
    }
    return MixedWindows(Mixture(corpora, SHARES), length, LOOKAHEAD, seed=1)


def rates(windows: PackedDocuments | MixedWindows, batch_size: int, seconds: float) -> dict[str, int]:
    """Positions of the batches that are made in so many seconds, padding counted as a training counts it."""
    steps = OptimizerSteps(windows, 0, batch_size)
    batches = iter(batches_of(steps, RankSlices(10**9, batch_size, 0, 1), batch_size, Collate()))
    for _ in itertools.islice(batches, 8):  # files are mapped, and an epoch is drawn
        pass
    began, cpu_began, n_batches = time.perf_counter(), time.process_time(), 0
    while (passed := time.perf_counter() - began) < seconds:
        next(batches)
        n_batches += 1
    n_tokens, cpu_passed = n_batches * batch_size * windows.sequence_length, time.process_time() - cpu_began
    return {
        "tokens_per_second": round(n_tokens / passed),
        "tokens_per_cpu_second": round(n_tokens / cpu_passed),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loader",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batch-size", type=count, default=2, help="windows a batch")
    parser.add_argument("--sequence-length", type=count, default=4096, help="tokens of a window")
    parser.add_argument("--mixture", action="store_true", help="two corpora")
    parser.add_argument("--longest", type=count, default=20, help="seconds of an utterance")
    parser.add_argument("--millions", type=count, default=20, help="of tokens of the corpora together")
    parser.add_argument("--seconds", type=float, default=5.0, help="to measure for")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        windows = open_windows(Path(folder), options)
        measured = rates(windows, options.batch_size, options.seconds)
    print(json.dumps(measured | vars(options)))


if __name__ == "__main__":
    main()
