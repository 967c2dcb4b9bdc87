"""CUDA's libraries stay away from machines without a GPU, and torch starts all the same."""

import ctypes
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.install.scripts import REPOSITORY, load_script

without_cuda = load_script("without_cuda")

linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in without_cuda.MACHINES, reason="torch links no CUDA here"
)


def test_the_lock_without_cuda_pins_everything_else_alike() -> None:
    lock = (REPOSITORY / "requirements.lock").read_text()
    reduced = without_cuda.reduced_lock(lock)
    whole, kept = (
        {line.partition("==")[0]: line for line in text.splitlines() if "==" in line} for text in (lock, reduced)
    )
    assert whole.keys() - kept.keys() == set(without_cuda.DROPPED)
    assert all(whole[name] == line for name, line in kept.items())
    assert set(reduced.splitlines()) <= set(lock.splitlines())
    assert reduced.count("--hash=sha256:") > 3 * len(kept)


@linux
@pytest.mark.parametrize("functions", [[], ["cublasCreate_v2", "cublasSgemm_v2", "cublasDestroy_v2"]])
def test_a_stand_in_defines_what_is_looked_up(tmp_path: Path, functions: list[str]) -> None:
    path = tmp_path / "libcublas.so.13"
    path.write_bytes(without_cuda.shared_object("libcublas.so.13", functions, platform.machine()))
    library = ctypes.CDLL(str(path), mode=2)  # RTLD_NOW, as Python loads torch
    assert all(hasattr(library, name) for name in functions)
    assert not hasattr(library, "cublasNothing")


@linux
def test_a_stand_in_that_is_called_ends_the_process(tmp_path: Path) -> None:
    path = tmp_path / "libnccl.so.2"
    path.write_bytes(without_cuda.shared_object("libnccl.so.2", ["ncclGetVersion"], platform.machine()))
    script = f"import ctypes; ctypes.CDLL({str(path)!r}).ncclGetVersion()"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGILL


@linux
def test_the_names_that_torch_looks_up_are_found() -> None:
    library = Path(torch.__file__).parent / "lib" / "libtorch_cuda.so"
    if not library.exists():
        pytest.skip("this torch is not the build for CUDA")
    names = without_cuda.undefined_names(library)
    for _, _, beginnings in without_cuda.LIBRARIES:
        if beginnings != ("curand",):  # linked, and never called
            assert any(name.startswith(beginnings) for name in names), beginnings


def test_libraries_that_are_there_stay(tmp_path: Path) -> None:
    (tmp_path / "torch/lib").mkdir(parents=True)
    real = tmp_path / "nvidia/nccl/lib/libnccl.so.2"
    real.parent.mkdir(parents=True)
    real.write_text("the real one")
    without_cuda.put_stand_ins(tmp_path)
    assert real.read_text() == "the real one"
