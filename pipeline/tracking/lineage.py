"""What a run was made from: the commit, the experiment, the machine and the versions."""

import getpass
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.plumbing.git import git

PACKAGES = ("torch", "torchaudio", "lightning", "numpy", "hydra-core", "dvc", "mlflow")
# DVC rewrites these while it runs a pipeline.
REWRITTEN = ("dvc.lock", ".gitignore")
WRITTEN_FOLDERS = ("data", "outputs")


def environment() -> dict[str, str]:
    """The machine and the versions that shape a result; what cannot be found out is left out."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "cpu": _cpu(), "gpu": _gpu()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {name: value for name, value in found.items() if value}


def lineage_tags(repository_root: Path) -> dict[str, str]:
    """Tags that lead from a run back to its source: commit, branch, experiment, machine, versions."""
    return {f"environment.{name}": value for name, value in environment().items()} | source_tags(repository_root)


def source_tags(repository_root: Path) -> dict[str, str]:
    """Tags of the commit, the branch, the experiment and the user.

    Names under `mlflow.` are those that the MLflow interface shows in columns of its own. Outside a git checkout the
    tags of git are absent.
    """
    tags = {"mlflow.source.type": "LOCAL"}
    tags["mlflow.user"] = _user()
    experiment = os.environ.get("DVC_EXP_NAME")
    if experiment:
        tags["dvc.experiment"] = experiment
    commit = git(repository_root, "rev-parse", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = commit
        branch = git(repository_root, "rev-parse", "--abbrev-ref", "HEAD")
        # A detached HEAD, as in DVC's experiments, has no branch.
        if branch and branch != "HEAD":
            tags["mlflow.source.git.branch"] = branch
        dirty = changed_files(repository_root)
        tags["git.dirty"] = str(bool(dirty)).lower()
        if dirty:
            tags["git.changed_files"] = "\n".join(dirty)
    return tags


def changed_files(repository_root: Path) -> list[str]:
    """Files that differ from the commit, those git does not know included.

    What a pipeline writes by itself says nothing about the source: `dvc.lock`, `.gitignore`, everything under `data/`
    and `outputs/`, and, inside a DVC experiment, `params.yaml`.
    """
    status = git(repository_root, "status", "--porcelain", "--no-renames", "-z", "--", ".") or ""
    prefix = git(repository_root, "rev-parse", "--show-prefix") or ""
    names = [entry[3:].removeprefix(prefix) for entry in status.split("\0") if entry]
    rewritten = REWRITTEN + (("params.yaml",) if os.environ.get("DVC_EXP_BASELINE_REV") else ())
    return [name for name in names if Path(name).name not in rewritten and Path(name).parts[0] not in WRITTEN_FOLDERS]


def _cpu() -> str:
    """The processor's marketing name and the number of logical cores."""
    name = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        models = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return f"{name or platform.machine()}, {os.cpu_count()} cores"


def _gpu() -> str:
    """Names of the NVIDIA devices; empty without any. Asking the driver keeps this process free of a CUDA context."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    names = done.stdout.split("\n")
    return ", ".join(name.strip() for name in names if name.strip())


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user in this container
        return "unknown"
