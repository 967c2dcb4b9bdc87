"""Models in revisions of a repository of git and DVC."""

import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo

from pipeline.comparison.finding.found import Places
from pipeline.comparison.finding.revisions import find_revision
from pipeline.tracking.config import TrackingConfig
from tests.evaluations import Model, write_evaluation_of


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A commit with an evaluation, sounds in DVC's cache; one without outputs; an experiment."""
    root = tmp_path_factory.mktemp("repository")
    git(root, "init", "-q", "-b", "main")
    Repo.init(str(root)).close()
    evaluation = write_evaluation_of(Model(), root / "outputs" / "evaluate", sounds=True)
    with Repo(str(root)) as repo:
        repo.add(str(evaluation / "audio"))
    commit(root, "evaluated")
    git(root, "tag", "first")
    git(root, "update-ref", "refs/exps/ab/cdef/faster", "HEAD")
    shutil.rmtree(root / "outputs")
    commit(root, "nothing left")
    return root


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    return subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def commit(root: Path, message: str) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", message)


@pytest.fixture
def places(repository: Path, tmp_path: Path) -> Places:
    return Places(Path("outputs"), tmp_path / "cache", repository, TrackingConfig("none"))


@pytest.mark.parametrize("name", ["first", "HEAD~1", "faster"])
def test_a_revision_and_an_experiment_are_brought_here_with_what_dvc_keeps(places: Places, name: str) -> None:
    found = find_revision(name, places)
    assert (found.evaluation / "utterances.csv").exists()
    assert len(list((found.evaluation / "audio").glob("*.wav"))) == 8
    assert found.label.startswith(name)
    assert found.export is None
    assert find_revision(name, places) == found


def test_the_working_tree_stays_as_it_is(places: Places, repository: Path) -> None:
    before = git(repository, "status", "--porcelain")
    find_revision("first", places)
    assert git(repository, "status", "--porcelain") == before
    assert not (repository / "outputs").exists()


def test_a_revision_without_outputs_is_told_with_a_remedy(places: Places) -> None:
    with pytest.raises(FileNotFoundError, match=r"HEAD holds no outputs/evaluate and no outputs/export; run it again"):
        find_revision("HEAD", places)
    assert not list((places.cache / "revisions").iterdir())


def test_what_git_does_not_know_is_no_revision(places: Places) -> None:
    assert find_revision("nothing-like-it", places) is None
    assert find_revision("--all", places) is None


def test_two_experiments_of_one_name_have_to_be_told_apart(places: Places, repository: Path) -> None:
    git(repository, "update-ref", "refs/exps/ab/cdef/twice", "HEAD")
    git(repository, "update-ref", "refs/exps/12/3456/twice", "HEAD~1")
    with pytest.raises(ValueError, match="2 experiments are called twice, of several commits; name one of"):
        find_revision("twice", places)
