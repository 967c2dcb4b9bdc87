"""How fast a corpus is prepared, in seconds of audio a second of processor time, and how much memory it takes.

    python -m benchmarks.prepare [--hours 1,3,10] [--sample-rate 16000] [--codec mel_rvq_4x256] [--device cpu]
                                 [--fit-hours 20] [--peers plain,lhotse]

The corpus is made up: recordings of 3 to 17 s, no two alike, 16-bit WAV. It is prepared in this one process, and then
the same files are turned into tokens by peers that check nothing, fit nothing and keep one array: `plain`, a loop of
soundfile and torchaudio (decode, resample, log-mel, nearest entries), and `lhotse`, which decodes and resamples in its
place (`uv pip install --target DIR lhotse`, PYTHONPATH=DIR). Each size runs in a process of its own, which prints one
JSON line: seconds of each step by the clock and of processor time, the rate over all steps, that of inspecting and
encoding alone, those of the peers, and the peak resident memory in MiB at first and after each step. Run it with
OMP_NUM_THREADS=1.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import soundfile
import torch
import torchaudio
from omegaconf import OmegaConf
from torch import Tensor

from pipeline.audio.codecs.mel_rvq import MelRvqCodec
from pipeline.audio.codecs.storage import load_codec
from pipeline.configuration.composed import CONF
from pipeline.preparation.engines.engine import LocalEngine
from pipeline.preparation.steps import Preparation

STEPS = ("inspect", "plan", "encode_long", "encode", "finish")
SHORTEST, LONGEST = 3.0, 17.0
# Seconds of sound that recordings are stretches of, each at a loudness of its own.
BANK_SECONDS = 600
PEERS = ("plain", "lhotse")


def write_corpus(folder: Path, hours: float, sample_rate: int) -> float:
    """Write recordings, and return how many seconds they last together."""
    generator = np.random.default_rng(1)
    time_axis = np.arange(BANK_SECONDS * sample_rate) / sample_rate
    pitch = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 0.37 * time_axis)) / sample_rate
    voice = sum(np.sin(k * pitch) / k for k in range(1, 9)) * np.maximum(np.sin(2 * np.pi * 3 * time_axis), 0.05)
    bank = (0.1 * voice + 0.003 * generator.standard_normal(len(time_axis))).astype(np.float32)
    written, number = 0.0, 0
    while written < hours * 3600:
        n_samples = int(generator.uniform(SHORTEST, LONGEST) * sample_rate)
        start = int(generator.integers(0, len(bank) - n_samples))
        path = folder / f"{number // 1000:04}" / f"{number:07}.wav"
        path.parent.mkdir(exist_ok=True)
        gain = generator.uniform(0.3, 1.0)
        soundfile.write(path, gain * bank[start : start + n_samples], sample_rate, subtype="PCM_16")
        written += n_samples / sample_rate
        number += 1
    return written


@contextmanager
def clocked(clocks: dict[str, list[float]], name: str) -> Iterator[None]:
    """Note how long the block takes, by the clock and of processor time."""
    began, cpu_began = time.perf_counter(), time.process_time()
    yield
    clocks[name] = [round(time.perf_counter() - began, 2), round(time.process_time() - cpu_began, 2)]


def peak_mib() -> float:
    """The most memory that this process has had."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def prepare(
    root: Path, work: Path, options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, float], Path]:
    """Prepare the corpus in this process; returns clocks and peaks of memory by step, and the folder."""
    overrides = [
        "data=folder", f"data.root={root}", f"codec={options.codec}", f"codec.device={options.device}",
        f"codec.fit_hours={options.fit_hours}", "data.workers=1", "data.screening.max_rejected_fraction=1",
    ]  # fmt: skip
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        values: Any = OmegaConf.to_container(hydra.compose("config", overrides), resolve=True)
    cache = work / "cache"
    cache.mkdir()
    preparation, clocks = Preparation(values, work / "prepared", cache, LocalEngine(1)), dict[str, list[float]]()
    peaks = {"begin": peak_mib()}
    for step in STEPS:
        with clocked(clocks, step):
            getattr(preparation, step)()
        peaks[step] = peak_mib()
    return clocks, peaks, work / "prepared"


def plain(path: Path, sample_rate: int) -> Tensor:
    """A recording's samples [S], mono, resampled, as one would without checks."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return _resampler(rate, sample_rate)(torch.from_numpy(samples.mean(axis=1)))


@lru_cache
def _resampler(source_rate: int, target_rate: int) -> torchaudio.transforms.Resample:
    """As long a filter as ours: the short default leaves aliases."""
    return torchaudio.transforms.Resample(
        source_rate, target_rate, "sinc_interp_kaiser", lowpass_filter_width=64, rolloff=0.9475937, beta=14.769656
    )


def lhotse(path: Path, sample_rate: int) -> Tensor:
    """The same, by lhotse."""
    from lhotse import Recording

    return torch.from_numpy(Recording.from_file(path).resample(sample_rate).load_audio()[0])


def encode_plainly(root: Path, codec: MelRvqCodec, read: Callable[[Path, int], Tensor]) -> Tensor:
    """The tokens of all recordings [T], made one after another."""
    config = codec.config
    log_mel = torchaudio.transforms.MelSpectrogram(
        config.sample_rate, config.n_fft, hop_length=config.hop_length, n_mels=config.n_mels, f_min=config.f_min,
        f_max=config.f_max, power=1.0, norm="slaney", mel_scale="slaney",
    )  # fmt: skip
    codebooks, tokens = codec.quantiser.codebooks, []
    for path in sorted(root.rglob("*.wav")):
        audio = read(path, config.sample_rate)
        audio = audio * (10 ** (config.loudness_db / 20) / audio.square().mean().sqrt())
        rest = log_mel(audio).clamp_min(config.log_floor).log().T - codec.mean
        codes = []
        for book in codebooks:
            codes.append(torch.cdist(rest, book).argmin(dim=1))
            rest = rest - book[codes[-1]]
        tokens.append(torch.stack(codes, dim=1).flatten())
    return torch.cat(tokens)


def measure(hours: float, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Prepare so many hours, and have the peers do the same."""
    root = folder / "corpus"
    root.mkdir()
    # Elsewhere: what making it up takes is no memory of the preparation.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        seconds = pool.submit(write_corpus, root, hours, options.sample_rate).result()
    clocks, peaks, prepared = prepare(root, folder, options)
    codec = load_codec(prepared / "codec")
    assert isinstance(codec, MelRvqCodec), "peers know mel_rvq alone"
    for peer in options.peers:
        if peer == "lhotse" and find_spec("lhotse") is None:
            continue
        with clocked(clocks, peer):
            encode_plainly(root, codec, {"plain": plain, "lhotse": lhotse}[peer])
    cpu = {name: cpu_seconds for name, (_, cpu_seconds) in clocks.items()}
    return {
        "hours": round(seconds / 3600, 3),
        "seconds": {name: wall for name, (wall, _) in clocks.items()},
        "cpu_seconds": cpu,
        "times_real_time": round(seconds / sum(cpu[step] for step in STEPS)),
        "inspecting_and_encoding": round(seconds / (cpu["inspect"] + cpu["encode_long"] + cpu["encode"])),
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
