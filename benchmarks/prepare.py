"""How fast a corpus is prepared, in seconds of audio a second of processor time, and how much memory it takes.

    python -m benchmarks.prepare [--hours 1,3,10] [--sample-rate 16000] [--codec mel_rvq_4x256] [--device cpu]
                                 [--batch-seconds 600] [--workers 1] [--fit-hours 20] [--peers plain,lhotse]

The corpus is made up: recordings of 3 to 17 s, no two alike, 16-bit WAV. It is prepared by so many workers (one: this
process), and then the same files are turned into tokens by peers that check nothing, fit nothing and keep one array,
in this process: `plain`, a loop of soundfile and torchaudio (decode, resample, log-mel, nearest entries), and `lhotse`,
which decodes and resamples in its place (`uv pip install --target DIR lhotse`, PYTHONPATH=DIR). Each size runs in a
process of its own, which prints one JSON line: seconds of each step by the clock and of processor time, the rate over
all steps, that of inspecting and encoding alone, those of the peers, and this process's peak resident memory in MiB at
first and after each step. Run it with OMP_NUM_THREADS=1.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import hydra
import soundfile
import torch
from omegaconf import OmegaConf
from torch import Tensor

from benchmarks.made_up_speech import recordings
from benchmarks.plain_tokens import encode_plainly, read_plainly
from pipeline.audio.codecs.configuration import CodecUse
from pipeline.audio.codecs.mel_rvq import MelRvqCodec
from pipeline.audio.codecs.storage import load_codec
from pipeline.configuration.composed import CONF
from pipeline.preparation.engines.engine import LocalEngine
from pipeline.preparation.steps import Preparation

STEPS = ("inspect", "plan", "encode_long", "encode", "finish")
# Those that take as long as a corpus is.
PER_HOUR = ("inspect", "encode_long", "encode")
PEERS = ("plain", "lhotse")


def write_corpus(folder: Path, hours: float, sample_rate: int, seed: int) -> float:
    """Write recordings, and return how many seconds they last together."""
    written = 0
    for number, samples in enumerate(recordings(hours, sample_rate, seed)):
        path = folder / f"{seed:03}_{number // 1000:04}" / f"{number:07}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, samples, sample_rate, subtype="PCM_16")
        written += len(samples)
    return written / sample_rate


def write_corpora(folder: Path, options: argparse.Namespace, hours: float) -> float:
    """Write recordings by several processes, where what making them up takes is no memory of the preparation."""
    n = options.workers
    with ProcessPoolExecutor(n, get_context("spawn")) as pool:
        parts = [pool.submit(write_corpus, folder, hours / n, options.sample_rate, seed) for seed in range(1, n + 1)]
        return sum(part.result() for part in parts)


def processor_seconds() -> float:
    """What this process has computed, and those of its processes that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@contextmanager
def clocked(clocks: dict[str, list[float]], name: str) -> Iterator[None]:
    """Note how long the block takes, by the clock and of processor time."""
    began, cpu_began = time.perf_counter(), processor_seconds()
    yield
    clocks[name] = [round(time.perf_counter() - began, 2), round(processor_seconds() - cpu_began, 2)]


def peak_mib() -> float:
    """The most memory that this process has had."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def prepare(
    root: Path, work: Path, options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, float], Path]:
    """Prepare the corpus; returns clocks and peaks of memory by step, and the folder."""
    overrides = [
        "data=folder", f"data.root={root}", f"codec={options.codec}", f"codec.device={options.device}",
        f"codec.fit_hours={options.fit_hours}", f"codec.batch_seconds={options.batch_seconds}",
        "data.screening.max_rejected_fraction=1",
    ]  # fmt: skip
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        values: Any = OmegaConf.to_container(hydra.compose("config", overrides), resolve=True)
    cache = work / "cache"
    cache.mkdir()
    preparation, clocks = (
        Preparation(values, work / "prepared", cache, LocalEngine(options.workers)),
        dict[str, list[float]](),
    )
    peaks = {"begin": peak_mib()}
    for step in STEPS:
        with clocked(clocks, step):
            getattr(preparation, step)()
        peaks[step] = peak_mib()
    return clocks, peaks, work / "prepared"


def lhotse(path: Path, sample_rate: int) -> Tensor:
    """A recording's samples [S] as lhotse reads and resamples them."""
    from lhotse import Recording

    return torch.from_numpy(Recording.from_file(path).resample(sample_rate).load_audio()[0])


def measure(hours: float, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Prepare so many hours, and have the peers do the same."""
    root = folder / "corpus"
    root.mkdir()
    seconds = write_corpora(root, options, hours)
    clocks, peaks, prepared = prepare(root, folder, options)
    codec = load_codec(prepared / "codec")
    assert isinstance(codec, MelRvqCodec), "peers know mel_rvq alone"
    for peer in options.peers:
        if peer == "lhotse" and find_spec("lhotse") is None:
            continue
        read = {"plain": read_plainly, "lhotse": lhotse}[peer]
        with clocked(clocks, peer):
            audios = (read(path, codec.sample_rate) for path in sorted(root.rglob("*.wav")))
            encode_plainly(audios, codec, torch.device(options.device))
    clock, cpu = ({name: times[kind] for name, times in clocks.items()} for kind in (0, 1))
    return {
        "hours": round(seconds / 3600, 3),
        "workers": options.workers,
        "seconds": clock,
        "cpu_seconds": cpu,
        "times_real_time": round(seconds / sum(cpu[step] for step in STEPS)),
        "inspecting_and_encoding": round(seconds / sum(cpu[step] for step in PER_HOUR)),
        "inspecting_and_encoding_by_the_clock": round(seconds / sum(clock[step] for step in PER_HOUR)),
        "encoding_by_the_clock": round(seconds / clock["encode"]),
        **{f"{peer}_times_real_time": round(seconds / cpu[peer]) for peer in options.peers if peer in cpu},
        "peak_mib": peaks,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--hours", default="1,3,10", help="sizes, separated by commas")
    parser.add_argument("--sample-rate", type=int, default=16000, help="of the recordings, in Hz")
    parser.add_argument("--codec", default="mel_rvq_4x256", help="a file of conf/codec, of the kind mel_rvq")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch-seconds", type=float, default=CodecUse.batch_seconds, help="of audio, on a GPU")
    parser.add_argument("--workers", type=int, default=1, help="processes, which share the GPU")
    parser.add_argument("--fit-hours", type=float, default=20.0, help="of audio that the codec is fitted on")
    parser.add_argument("--peers", default=",".join(PEERS), help="of plain and lhotse; empty: none")
    options = parser.parse_args(arguments)
    sizes = [float(size) for size in options.hours.split(",")]
    if len(sizes) > 1:
        rest = [argument for argument in vars(options) if argument != "hours"]
        shared = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in rest]
        for size in sizes:
            subprocess.run([sys.executable, "-m", "benchmarks.prepare", f"--hours={size}", *shared], check=True)
        return
    options.peers = [peer for peer in options.peers.split(",") if peer]
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(sizes[0], options, Path(folder))))


if __name__ == "__main__":
    main()
