import platform
import subprocess
from pathlib import Path

import pytest

from pipeline.tracking import environment, lineage_tags
from pipeline.tracking.lineage import changed_files


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init")
    for name in ("train.py", "dvc.lock", "params.yaml", ".gitignore"):
        (tmp_path / name).write_text("first\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_a_clean_checkout(checkout):
    tags = lineage_tags(checkout)
    assert tags["mlflow.source.git.commit"] == git(checkout, "rev-parse", "HEAD")
    assert tags["mlflow.source.git.branch"] == "main"
    assert tags["git.dirty"] == "false"


def test_changed_and_new_sources_are_dirty(checkout):
    (checkout / "train.py").write_text("second\n")
    (checkout / "a new file.py").write_text("")
    tags = lineage_tags(checkout)
    assert tags["git.dirty"] == "true"
    assert tags["git.changed_files"].split("\n") == ["train.py", "a new file.py"]


def test_what_the_pipeline_writes_is_not_dirty(checkout):
    for name in ("dvc.lock", ".gitignore", "outputs/train/metrics.json", "data/.gitignore"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("second\n")
    assert lineage_tags(checkout)["git.dirty"] == "false"


def test_params_are_a_source_except_in_an_experiment(checkout, monkeypatch):
    (checkout / "params.yaml").write_text("second\n")
    assert changed_files(checkout) == ["params.yaml"]
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "abc")
    monkeypatch.setenv("DVC_EXP_NAME", "puffy-daks")
    git(checkout, "checkout", "--detach")
    tags = lineage_tags(checkout)
    assert tags["git.dirty"] == "false"
    assert tags["dvc.experiment"] == "puffy-daks"
    assert "mlflow.source.git.branch" not in tags


def test_a_checkout_inside_another_looks_at_itself_only(checkout):
    inner = checkout / "inner"
    inner.mkdir()
    (inner / "new.py").write_text("")
    (checkout / "train.py").write_text("second\n")
    git(checkout, "add", ".")
    assert changed_files(inner) == ["new.py"]


def test_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    tags = lineage_tags(tmp_path)
    assert not [name for name in tags if "git" in name]
    assert tags["environment.python"] == platform.python_version()


def test_the_environment_names_machine_and_versions():
    assert {"python", "platform", "cpu", "torch", "lightning"} <= set(environment())
