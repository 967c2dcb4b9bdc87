import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repository_copy import RepositoryCopy
from tests.servers.team import Clone, Member, Team

# What `deploy/servers.sh` starts, and what Debian calls it.
PROGRAMS = {"postgres": "postgresql", "radosgw": "radosgw", "ceph-mon": "ceph-mon", "ceph-osd": "ceph-osd"}
MODULES = ("boto3", "dvc_s3", "flask_wtf", "psycopg2", "s3fs")


@pytest.fixture(scope="session")
def team() -> Iterator[Team]:
    """Real servers, which end with the tests."""
    lacking = [module for module in MODULES if importlib.util.find_spec(module) is None]
    if lacking:
        pytest.fail(f"{', '.join(lacking)} is not installed; make cluster installs it.")
    lacking = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if lacking:
        pytest.fail(f"The servers are not installed; apt-get install --no-install-recommends {' '.join(lacking)}")
    # Not pytest's own folder: that is closed to the user that PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="melisma-team-"))
    folder.chmod(0o755)
    team = Team(folder)
    try:
        team.servers("up")
        yield team
    finally:
        team.servers("down")
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def alice(team: Team) -> Member:
    return team.member("alice")


@pytest.fixture(scope="session")
def bob(team: Team) -> Member:
    return team.member("bob")


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare repository that both clone, with `debug=smoke` as its default."""
    copy = RepositoryCopy(tmp_path_factory.mktemp("first"))
    bare = tmp_path_factory.mktemp("origin") / "melisma.git"
    copy.run("git", "clone", "-q", "--bare", str(copy.root), str(bare))
    return bare


@pytest.fixture(scope="session")
def alices(origin: Path, alice: Member, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("alice") / "melisma", origin, alice)


@pytest.fixture(scope="session")
def bobs(origin: Path, bob: Member, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("bob") / "melisma", origin, bob)
