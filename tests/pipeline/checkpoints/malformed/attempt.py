"""Opens and converts every malformed checkpoint in one process, and writes down what came of it.

python -m tests.pipeline.checkpoints.malformed.attempt <empty folder>
"""

import json
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoints.architecture_match import OpenOptions
from pipeline.checkpoints.conversion import ConversionOptions, convert
from pipeline.checkpoints.registry import open_checkpoint
from tests.pipeline.checkpoints.malformed.archives import archives
from tests.pipeline.checkpoints.malformed.configurations import configurations
from tests.pipeline.checkpoints.malformed.corpus import CONFIG, Case, Pristine, bit_flips, truncations, whole
from tests.pipeline.checkpoints.malformed.folders import folders
from tests.pipeline.checkpoints.malformed.headers import headers
from tests.pipeline.checkpoints.malformed.indices import indices
from tests.pipeline.checkpoints.malformed.pickles import pickles
from tests.pipeline.checkpoints.malformed.tensors import tensors

SECONDS_EACH = 5
# Beside what the process has when it begins; the checkpoints are of a few kilobytes.
MEMORY_BYTES = 2**30


class Hang(BaseException):
    """An attempt took too long."""


def cases(pristine: Pristine, canary: Path) -> Iterator[Case]:
    """The whole corpus."""
    yield from whole(pristine)
    yield from truncations(pristine)
    yield from bit_flips(pristine)
    yield from headers(pristine)
    yield from indices(pristine)
    yield from configurations(pristine)
    yield from tensors(pristine)
    yield from pickles(pristine, canary)
    yield from archives(pristine)
    yield from folders(pristine)


def attempt(case: Case, folder: Path, canary: Path) -> dict[str, Any]:
    """Try to convert one malformed checkpoint: what was raised, and what was left."""
    path = case.write(folder)
    before = listing(folder)
    outcome: dict[str, Any] = {
        "name": case.name,
        "is_good": case.is_good,
        "error": None,
        "message": "",
        "is_ours": False,
    }
    started = time.perf_counter()
    signal.alarm(SECONDS_EACH)
    try:
        source = open_checkpoint(path, options=OpenOptions(CONFIG))
        layout = "deepseek" if source.layout == "huggingface" else "huggingface"
        convert(source, folder / "target", layout, ConversionOptions())
    except (Exception, Hang) as error:
        outcome |= {"error": type(error).__name__, "message": str(error)}
        outcome["is_ours"] = isinstance(error, ValueError | FileNotFoundError)
    finally:
        signal.alarm(0)
    outcome["seconds"] = time.perf_counter() - started
    outcome["names_file"] = str(path) in outcome["message"]
    outcome["left"] = sorted(listing(folder) - before)
    outcome["ran_code"] = canary.exists()
    canary.unlink(missing_ok=True)
    return outcome


def listing(folder: Path) -> set[str]:
    """Every file and folder below, by its path."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def limit() -> None:
    """Let no attempt take all of the machine's memory, or run for ever."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    n_bytes = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))

    def stop(*_: Any) -> None:
        raise Hang(f"took more than {SECONDS_EACH} seconds")

    signal.signal(signal.SIGALRM, stop)


def main(folder: Path) -> None:
    """Attempt all; the outcomes go to `outcomes.jsonl`, each as soon as it is known."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    (folder / "good").mkdir()
    pristine, canary = Pristine(folder / "good"), folder / "canary"
    limit()
    with (folder / "outcomes.jsonl").open("w") as file:
        for case in cases(pristine, canary):
            workplace = Path(tempfile.mkdtemp(dir=folder))
            file.write(json.dumps(attempt(case, workplace, canary)) + "\n")
            file.flush()
            shutil.rmtree(workplace)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
