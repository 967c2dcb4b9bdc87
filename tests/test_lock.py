"""The lock of all dependencies: pinned with hashes, and good for every system and Python that is supported."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LOCK = Path(__file__).parents[1] / "requirements.lock"
# What is installed on top of it, for a cluster and for judges.
BEYOND = [LOCK.with_name(f"requirements-{name}.lock") for name in ("cluster", "judges")]
# What a package index that cannot be reached makes uv say.
UNREACHABLE = ("error sending request", "dns error", "Failed to fetch", "Could not connect", "timed out")
# Published as source only; what they hold is Python.
FROM_SOURCE = "antlr4-python3-runtime,iterative-telemetry"


def pins() -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)==([^\s;]+)", LOCK.read_text(), flags=re.MULTILINE))


def test_everything_is_pinned_with_hashes_and_no_address() -> None:
    text = LOCK.read_text()
    assert "://" not in text
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert len(blocks) == len(pins())
    assert all("--hash=sha256:" in block for block in blocks)
    assert pins()["torch"] == pins()["torchaudio"]


def test_what_one_system_alone_needs_is_marked_so() -> None:
    text = LOCK.read_text()
    assert re.search(r"^triton==\S+ ; sys_platform == 'linux'", text, flags=re.MULTILINE)
    assert re.search(r"^audioop-lts==\S+ ; python_full_version >= '3.13'", text, flags=re.MULTILINE)
    assert all(f"{name}==" not in text or "linux" in text.split(f"\n{name}==")[1].splitlines()[0]
               for name in pins() if name.startswith("nvidia-"))  # fmt: skip


@pytest.mark.network
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("system", ["aarch64-apple-darwin", "x86_64-pc-windows-msvc", "x86_64-unknown-linux-gnu"])
def test_it_can_be_installed_on(system: str, python: str, tmp_path: Path) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv is not installed")
    command = [
        uv, "pip", "install", "--dry-run", "--python", sys.executable, "--python-version", python,
        "--python-platform", system, "--target", tmp_path, "--no-deps", "--require-hashes",
        "--only-binary", ":all:", "--no-binary", FROM_SOURCE, "-r", LOCK,
    ]  # fmt: skip
    if "linux" in system:
        command += [argument for lock in BEYOND for argument in ("-r", lock)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if any(words in ended.stderr for words in UNREACHABLE):
        pytest.skip("the package index cannot be reached")
    assert ended.returncode == 0, ended.stderr
    assert f"+ torch=={pins()['torch']}" in ended.stderr
