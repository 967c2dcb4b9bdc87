"""Models that deleted runs leave behind, and what docs/tracking.md says of keeping stores small, word by word."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from pipeline.provenance.exports import export_digest
from pipeline.tracking.leftovers import main
from pipeline.tracking.model_entry import EXPORT, ModelEntry
from pipeline.tracking.registry import champion_export, promote
from pipeline.tracking.run import TrackedRun
from tests.pipeline.tracking.conftest import CONFIG
from tests.pipeline.tracking.exports import TRAINING, write_export

REPOSITORY = Path(__file__).parents[3]
# What stands in for a repository of ours: one stage, whose output tells its parameter.
PIPELINE = "stages: {train: {cmd: cp params.yaml model.txt, params: [step], outs: [model.txt]}}\n"
# Runs DVC's commands of a file in one process.
DVC = "import shlex, sys; from dvc.cli import main; sys.exit(any(main(shlex.split(line)) for line in sys.stdin))"


def documented(program: str) -> list[str]:
    """The commands of the section that begin so."""
    section = (REPOSITORY / "docs" / "tracking.md").read_text().partition("## Keeping stores small")[2]
    lines = "".join(re.findall(r"```\n(.*?)```", section, re.DOTALL)).splitlines()
    commands = [line.partition("#")[0].strip() for line in lines if program in line]
    assert commands
    return commands


@pytest.fixture
def trained(start: Callable[..., TrackedRun], root: Path) -> Callable[[str], str]:
    """Trains, as far as the store sees it: a file and a model whose files it keeps. Gives the run's id."""

    def train(name: str) -> str:
        export = write_export(root / name, name)
        with start(name, tags=TRAINING.tags()) as run:
            run.log_artifact(export / "config.json", "configuration")
            run.log_model(ModelEntry(EXPORT, EXPORT, export_digest(export), export, keep="copy"))
        return str(run.run_id)

    return train


def kept_weights(root: Path) -> set[str]:
    return {path.read_text() for path in (root / "mlartifacts").rglob("model.safetensors")}


def test_what_deleted_runs_leave_goes_and_the_champion_stays(
    trained: Callable[[str], str], root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    runs = {name: trained(name) for name in ("kept", "deleted", "champion")}
    promote(CONFIG, root, root / "champion", None, "better", {})
    for name in ("deleted", "champion"):
        client.delete_run(runs[name])
    (leftovers,) = documented("pipeline.tracking.leftovers")
    assert main(shlex.split(leftovers)[3:]) == 0
    (collect,) = documented("mlflow gc")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-c", collect], cwd=root, env=os.environ | {"PATH": path}, check=True)
    assert kept_weights(root) == {"kept", "champion"}
    assert len(list((root / "mlartifacts").rglob("configuration"))) == 1
    assert (champion_export(CONFIG, root) / "model.safetensors").read_text() == "champion"
    models = client.search_logged_models([client.get_experiment_by_name("test").experiment_id])
    assert {model.source_run_id for model in models} == {runs["kept"], runs["champion"]}


def test_leftovers_are_listed_before_they_are_deleted(
    trained: Callable[[str], str], root: Path, client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{root}/mlflow.db"
    run_id = trained("first")
    assert main(["--uri", uri]) == 0
    assert "have left no models" in capsys.readouterr().out
    # Deleting an experiment deletes its runs.
    client.delete_experiment(client.get_experiment_by_name("test").experiment_id)
    for _ in range(2):
        assert main(["--uri", uri]) == 0
        assert f"run {run_id}; files: copy" in capsys.readouterr().out
    assert main(["--uri", uri, "--delete"]) == 0
    assert "1 models deleted" in capsys.readouterr().out
    assert main(["--uri", uri]) == 0
    assert "have left no models" in capsys.readouterr().out
    assert main(["--uri", "http://127.0.0.1:1"]) == 1
    assert "nothing listens there" in capsys.readouterr().err


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a folder as its DVC remote."""
    root = tmp_path / "repository"
    root.mkdir()
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Alice")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "alice@example.org")
    git(root, "init", "-q", "-b", "main")
    (root / "dvc.yaml").write_text(PIPELINE)
    dvc(root, "init", f"remote add --default folder {tmp_path}/remote", "config core.analytics false")
    return root


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def dvc(root: Path, *commands: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", DVC], cwd=root, input="\n".join(commands), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def commit_run(root: Path, step: int) -> None:
    (root / "params.yaml").write_text(f"step: {step}\n")
    dvc(root, "repro", "push")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", f"step {step}")


def held(folder: Path) -> set[int]:
    """The steps whose outputs a cache or a remote holds."""
    contents = [path.read_text() for path in (folder / "files").rglob("*") if path.is_file()]
    return {int(content.removeprefix("step: ")) for content in contents if content.startswith("step: ")}


def test_what_no_commit_and_no_experiment_has_leaves_dvcs_stores(repository: Path, tmp_path: Path) -> None:
    cache, remote = repository / ".dvc" / "cache", tmp_path / "remote"
    commit_run(repository, 1)
    # Of a colleague: a branch that was fetched.
    git(repository, "checkout", "-q", "--detach")
    commit_run(repository, 2)
    git(repository, "update-ref", "refs/remotes/origin/bobs", "HEAD")
    # Amended: nobody has the first run any more.
    git(repository, "checkout", "-q", "main")
    commit_run(repository, 3)
    (repository / "params.yaml").write_text("step: 4\n")
    dvc(repository, "repro", "push")
    git(repository, "commit", "-q", "-a", "--amend", "-m", "step 4")
    dvc(repository, "exp run -S step=5", "push")
    git(repository, "checkout", "-q", "-f", "main")
    dvc(repository, "checkout")
    assert held(cache) == held(remote) == {1, 2, 3, 4, 5}

    for_remote, for_cache = (line.removeprefix("dvc ") for line in documented("dvc gc"))
    dvc(repository, f"{for_remote} --force")
    assert held(remote) == {1, 2, 4, 5}
    dvc(repository, f"{for_cache} --force")
    assert held(cache) == {4, 5}
    assert held(remote) == {1, 2, 4, 5}
