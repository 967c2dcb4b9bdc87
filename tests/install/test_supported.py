"""Every Python is taken or refused before anything is installed, and in one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.install.scripts import REPOSITORY, load_script

module = load_script("supported")

MINORS = module.supported((REPOSITORY / "pyproject.toml").read_text())


def test_this_python_is_supported() -> None:
    assert sys.version_info.minor in MINORS
    subprocess.run([sys.executable, REPOSITORY / "install/supported.py"], check=True)


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 6, 8), (3, MINORS[0] - 1, 9), (3, MINORS[-1] + 1, 0), (4, 12, 0)])
def test_others_are_refused_by_name(version: tuple[int, int, int]) -> None:
    said = module.refusal(version, MINORS)
    assert "\n" not in said
    assert f"Python 3.{MINORS[0]} to 3.{MINORS[-1]}" in said
    assert f"is {version[0]}.{version[1]};" in said


def test_the_one_release_that_miscompiles_is_refused() -> None:
    assert "install 3.13.1 or newer" in module.refusal((3, 13, 0), MINORS)
    assert not module.refusal((3, 13, 1), MINORS)
    assert "!=3.13.0" in (REPOSITORY / "pyproject.toml").read_text()


def python_of(version: str, folder: Path) -> Path:
    """A program that says of itself to be this version of Python, and runs scripts as this one does."""
    program = folder / f"python{version}"
    major, minor = version.split(".")
    set_version = f"import sys, runpy; sys.version_info = ({major}, {minor}, 0); sys.argv = sys.argv[1:]"
    program.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c \'{set_version}; runpy.run_path(sys.argv[0], None, "__main__")\' "$@"\n'
    )
    program.chmod(0o755)
    return program


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # The variables of the make that runs these tests stay out of it.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "PYTHON")
    }
    return subprocess.run(
        ["make", "-C", REPOSITORY, "--no-print-directory", *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_make_installs_nothing_with_another(tmp_path: Path) -> None:
    ended = make("install", f"PYTHON={python_of('3.10', tmp_path)}", f"VENV={tmp_path / 'environment'}")
    assert ended.returncode != 0
    assert "Melisma needs Python 3." in ended.stderr
    assert not (tmp_path / "environment").exists()


def test_make_finds_a_supported_one_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python_of("3.10", tmp_path).rename(tmp_path / "python3")
    python_of("3.12", tmp_path)
    python_of("3.11", tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    said = make("--dry-run", "install", f"VENV={tmp_path / 'environment'}").stdout
    assert "python3.12 -m venv" in said or "python3.13 -m venv" in said


@pytest.mark.parametrize(("version", "is_told"), [("3.4.0", True), (sys.version.split()[0], False)])
def test_an_environment_of_another_python_is_not_passed_over(version: str, is_told: bool, tmp_path: Path) -> None:
    program = tmp_path / "bin/python"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho Python {version}\n")
    program.chmod(0o755)
    said = make("--dry-run", "install", f"PYTHON={sys.executable}", f"VENV={tmp_path}").stderr
    assert (f"{tmp_path} is of Python {version}, and " in said) == is_told


def test_the_makefile_looks_for_each_that_is_supported() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    listed = next(line for line in makefile.splitlines() if line.startswith("SUPPORTED :="))
    assert {f"3.{minor}" for minor in MINORS} == set(listed.split()[2:])
