"""espeak-ng from outside: shards of WAV files, each from a process of its own."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import joblib
from tqdm import tqdm

from pipeline.plumbing.files import read_json, write_json

WORKER = Path(__file__).with_name("espeak_worker.py")
LENGTHS = "seconds.json"


@dataclass(frozen=True)
class Request:
    """One sentence to speak, and the file it goes to, as `shard_000/000.wav`."""

    file: str
    text: str
    voice: str
    words_per_minute: int
    pitch: int


def installed_version() -> str:
    """The version of espeakng-loader; raises a ModuleNotFoundError with the remedy when it is not installed."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise ModuleNotFoundError(
            "data.kind=espeak needs espeakng-loader: pip install 'melisma[espeak]', or choose other speech, "
            "as with data=folder data.root=/path/to/audio."
        )
    return importlib.metadata.version("espeakng-loader")


def known_voices() -> dict[str, list[str]]:
    """The `languages` and `variants` that espeak-ng speaks with."""
    return _run_worker(["--voices"], "")


def shard_seconds(folder: Path, shard: Sequence[Request]) -> dict[str, float] | None:
    """The length of each file of a shard, by its name; None unless the shard is there with all its files."""
    path = folder / _shard_name(shard)
    if not (path / LENGTHS).is_file():
        return None
    seconds = {f"{path.name}/{name}": float(length) for name, length in read_json(path / LENGTHS).items()}
    complete = all(request.file in seconds and (folder / request.file).is_file() for request in shard)
    return seconds if complete else None


def synthesise(folder: Path, shards: Sequence[Sequence[Request]]) -> None:
    """Speak the shards into `folder`, on all cores; each appears there complete, or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    # Threads suffice: they wait for processes.
    with ThreadPoolExecutor(max_workers=joblib.cpu_count()) as pool:
        jobs = [pool.submit(_synthesise_shard, folder, shard) for shard in shards]
        try:
            for job in tqdm(as_completed(jobs), total=len(jobs), desc="speaking", unit="shard"):
                job.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _synthesise_shard(folder: Path, shard: Sequence[Request]) -> None:
    finished = folder / _shard_name(shard)
    # Named as `sweep` knows what a killed process has left.
    suffix = f".{os.getpid()}.partial"
    with tempfile.TemporaryDirectory(suffix, f".{finished.name}.", folder) as temporary:
        building = Path(temporary, "shard")
        building.mkdir()
        utterances = [asdict(replace(request, file=Path(request.file).name)) for request in shard]
        seconds = _run_worker([str(building)], json.dumps(utterances))
        write_json(building / LENGTHS, seconds)
        if finished.exists() and shard_seconds(folder, shard) is None:
            shutil.rmtree(finished)
        try:
            building.rename(finished)
        except OSError:
            # Another process may have spoken the same shard, to the same bytes, while this one did.
            if shard_seconds(folder, shard) is None:
                raise


def _shard_name(shard: Sequence[Request]) -> str:
    return Path(shard[0].file).parent.name


def _run_worker(arguments: list[str], requests: str) -> Any:
    # -P keeps the modules beside the worker from shadowing others; by its path, the worker imports none of ours.
    command = [sys.executable, "-P", str(WORKER), *arguments]
    answer = subprocess.run(command, input=requests, capture_output=True, text=True, encoding="utf-8", check=False)
    if answer.returncode != 0:
        message = answer.stderr.strip() or f"it ended with status {answer.returncode}"
        raise RuntimeError(f"espeak-ng failed: {message.splitlines()[-1]}")
    return json.loads(answer.stdout)
