"""Models in a git revision or a DVC experiment: brought here from git and DVC's cache, the working tree untouched."""

import logging
import typing
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline.comparison.finding.folders import EVALUATE, EXPORT, TRAIN, found_in
from pipeline.comparison.finding.found import Found, Places
from pipeline.plumbing.files import atomic_folder
from pipeline.plumbing.git import git
from pipeline.provenance.identity import IDENTITY
from pipeline.provenance.training import CONFIGURATION

if typing.TYPE_CHECKING:
    from dvc.api import DVCFileSystem

log = logging.getLogger(__name__)

SHORT = 7
EXPERIMENTS = "refs/exps"
REMEDY = "run it again (dvc exp apply NAME, dvc repro), or bring its files with dvc pull"


def find_revision(name: str, places: Places) -> Found | None:
    """The model that the pipeline left in a revision; None where git and DVC know none of this name.

    Raises:
        FileNotFoundError, ValueError: when it holds no outputs, or several experiments have this name.
    """
    commit = _commit(name, places.repository)
    if commit is None:
        return None
    folder = places.cache / "revisions" / commit
    if not folder.is_dir():
        with atomic_folder(folder) as temporary:
            _bring(name, commit, places, temporary)
    label = name if name.startswith(commit[:SHORT]) or commit.startswith(name) else f"{name} ({commit[:SHORT]})"
    remedy = f"{name} holds no evaluation that can be compared, and its export is not in DVC's cache; {REMEDY}."
    return replace(found_in(name, label, folder / EVALUATE, folder / EXPORT), remedy=remedy)


def _commit(name: str, repository: Path) -> str | None:
    """The commit that a revision, or an experiment of this name, stands for."""
    if name.startswith("-"):
        return None
    found = git(repository, "rev-parse", "--quiet", "--verify", f"{name}^{{commit}}")
    if found:
        return found
    lines = (git(repository, "for-each-ref", "--format=%(objectname) %(refname)", EXPERIMENTS) or "").splitlines()
    commits = [line.split()[0] for line in lines if line.partition(f"{EXPERIMENTS}/")[2].split("/", 2)[2:] == [name]]
    if len(commits) > 1:
        raise ValueError(
            f"{len(commits)} experiments are called {name}, of several commits; name one of "
            f"{', '.join(commit[:SHORT] for commit in commits)}."
        )
    return commits[0] if commits else None


def _bring(revision: str, commit: str, places: Places, folder: Path) -> None:
    """Copy the evaluation and the export of a revision into `folder`, and what its training says of itself.

    Raises:
        FileNotFoundError: when the revision holds neither.
    """
    # DVC takes a second to import.
    from dvc.api import DVCFileSystem

    outputs = "outputs" if places.outputs.is_absolute() else places.outputs.as_posix()
    log.info("Bringing %s of %s here, from git and DVC's cache.", outputs, revision)
    files = DVCFileSystem(str(places.repository), rev=commit)
    for stage in (EVALUATE, EXPORT):
        if files.isdir(f"{outputs}/{stage}"):
            _copy(files, files.find(f"{outputs}/{stage}"), outputs, folder)
    for name in (CONFIGURATION, IDENTITY):
        if files.exists(f"{outputs}/{TRAIN}/{name}"):
            _copy(files, [f"{outputs}/{TRAIN}/{name}"], outputs, folder)
    if not any(folder.iterdir()):
        raise FileNotFoundError(f"{revision} holds no {outputs}/{EVALUATE} and no {outputs}/{EXPORT}; {REMEDY}.")


def _copy(files: "DVCFileSystem", paths: Iterable[str], outputs: str, folder: Path) -> None:
    """Copy files of the outputs into `folder`; what neither git nor DVC's cache still holds is left out."""
    for path in paths:
        place = folder / Path(path).relative_to(outputs)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            files.get_file(path, str(place))
        except FileNotFoundError:
            place.unlink(missing_ok=True)
            log.warning("%s is in neither git nor DVC's cache.", path)
