"""What docs/installation.md says, as far as it can be tried without a registry and in no time."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs/installation.md").read_text()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^    (make [^#\n]*[^#\s])", PAGE, flags=re.MULTILINE))))
def test_make_knows_its_commands(command: str, tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    (tmp_path / "python3.12").symlink_to(shutil.which("python3"))
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "PYTHON")
    }
    environment["PATH"] = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    # In a folder of its own, so that nothing is installed yet, and without looking for other Pythons.
    subprocess.run([*command.split(), "--dry-run", f"VENV={tmp_path / 'environment'}", "SUPPORTED="],
                   cwd=REPOSITORY, env=environment, capture_output=True, check=True)  # fmt: skip


def admitted() -> set[str]:
    """What of the repository the image's .dockerignore lets in."""
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    return {line[1:] for line in lines if line.startswith("!")}


def test_the_image_holds_what_the_stages_need_and_nothing_else() -> None:
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"].values()
    dependencies = [dependency for stage in stages for dependency in stage["deps"] if "$" not in dependency]
    needed = {Path(dependency).parts[0] for dependency in dependencies} - {"outputs", "data"}
    assert needed <= admitted()
    assert all((REPOSITORY / name).exists() for name in admitted())
    assert not admitted() & {".", ".git", ".venv", "data", "outputs", "mlflow.db", "mlartifacts"}


def test_the_image_runs_as_nobody_in_particular() -> None:
    users = re.findall(r"^USER (\S+)$", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE)
    # By number: a cluster that demands a user other than root looks at no names.
    assert users[-1].isdigit()
    assert users[-1] != "0"
