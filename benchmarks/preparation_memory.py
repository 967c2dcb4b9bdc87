"""Does the driver of a preparation hold its corpus? Its memory after each step, over corpora of several sizes.

    python -m benchmarks.preparation_memory [--utterances 10000,100000,1000000] [--engine local|ray] [--workers 2]

No audio is opened: what is found in a recording and its samples follow from its name, ten milliseconds of noise each,
and the codec is mu-law. What is left is what grows with a corpus: the listing, the findings, the plan, the shards, the
index, the tables. Each size runs in a process of its own. Prints one JSON line a size: the peak resident memory of the
driver in MiB when it began and after each step, workers not counted, and the seconds that each step took.
"""

import argparse
import hashlib
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.audio.corpora.corpus import Recording
from pipeline.audio.source import Source
from pipeline.audio.survey import Survey, Take
from pipeline.preparation import inspection, steps, utterance_reader
from pipeline.preparation.configuration import LocalConfig, PreparationConfig, RayConfig
from pipeline.preparation.engines.registry import build_engine

RATE = 8000
SAMPLES = 80
STEPS = ("inspect", "plan", "encode", "finish")
DATA: Mapping[str, Any] = {
    "kind": "folder", "root": "/", "speaker_from": "folder", "transcripts": None, "seed": 1,
    "split": {"by": "file", "validation": 0.01, "test": 0.01},
    "utterances": {"min_seconds": 0.005, "max_seconds": 20.0, "join_seconds": None, "gap_seconds": 0.06},
    "screening": {
        "silence_rms": 1e-4, "max_clipped_fraction": 0.01, "max_rejected_fraction": 0.1, "damaged": "skip",
        "min_sample_rate": 4000, "max_sample_rate": 768_000, "max_hours": 24,
    },
    "shard_utterances": 1024, "reference_utterances": 16, "workers": None,
}  # fmt: skip
CODEC = {"kind": "mu_law", "sample_rate": RATE, "quantization_channels": 256, "loudness_db": -23.0}


class MadeUpCorpus:
    """So many recordings, none of which lies anywhere."""

    name = "made up"

    def __init__(self, n_recordings: int) -> None:
        self.n_recordings = n_recordings

    def recordings(self) -> Iterator[Recording]:
        for number in range(self.n_recordings):
            yield Recording(f"speaker_{number % 997:03}/{number:08}.wav", f"speaker_{number % 997:03}", "It says so.")

    def remarks(self) -> list[str]:
        return []

    def source(self, recording: Recording) -> Source:
        return Source(f"/made/up/{recording.id}")


def survey(source: Source, silence_rms: float, max_seconds: float) -> Survey:
    digest = hashlib.sha256(source.path.encode()).hexdigest()
    return Survey(RATE, Take(SAMPLES), digest, rms=0.1, clipped_fraction=0.0, finite=True, peak=0.5)


def read_take(source: Source, take: Take) -> tuple[np.ndarray, int]:
    seed = int.from_bytes(hashlib.sha256(source.path.encode()).digest()[:8])
    return np.random.default_rng(seed).uniform(-0.5, 0.5, take.n_frames).astype(np.float32), RATE


# On import, so that workers which are sent the corpus make it up as well.
inspection.survey = survey
utterance_reader.read_take = read_take


def peak_mib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def measure(n_utterances: int, engine: str, workers: int, folder: Path) -> dict[str, Any]:
    """Prepare a corpus of this size."""
    kind = LocalConfig() if engine == "local" else RayConfig(address=None, cpus=1, gpus=0, retries=3)
    built = build_engine(PreparationConfig(kind, "all", None), workers, folder / "cache")
    values = {"data": dict(DATA), "codec": CODEC}
    preparation = steps.Preparation(values, folder / "prepared", folder / "cache", built)
    # In the place of what `cached_property` would build.
    preparation.__dict__["corpus"] = MadeUpCorpus(n_utterances)
    peaks, seconds = {}, {}
    with built.started():
        peaks["begin"] = peak_mib()
        for step in STEPS:
            began = time.perf_counter()
            getattr(preparation, step)()
            seconds[step] = round(time.perf_counter() - began, 1)
            peaks[step] = peak_mib()
    plan = sum(path.stat().st_size for path in (folder / "prepared").rglob("*") if path.is_file())
    return {"utterances": n_utterances, "engine": engine, "peak_mib": peaks, "seconds": seconds, "bytes": plan}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", default="10000,100000,1000000", help="sizes, separated by commas")
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--workers", type=int, default=2, help="processes of the local engine, at least 2")
    options = parser.parse_args()
    sizes = [int(size) for size in options.utterances.split(",")]
    if len(sizes) > 1:
        for size in sizes:
            arguments = [f"--utterances={size}", f"--engine={options.engine}", f"--workers={options.workers}"]
            subprocess.run([sys.executable, "-m", "benchmarks.preparation_memory", *arguments], check=True)
        return
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        # Of the module that workers can import, which `__main__` is not.
        from benchmarks import preparation_memory

        print(json.dumps(preparation_memory.measure(sizes[0], options.engine, options.workers, Path(folder))))


if __name__ == "__main__":
    main()
