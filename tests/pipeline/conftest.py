import pytest

from tests.repository_copy import STAGES, RepositoryCopy, stages_run


@pytest.fixture(scope="module")
def copy(espeak_available: None, tmp_path_factory: pytest.TempPathFactory) -> RepositoryCopy:
    """A copy of the repository, after its first `dvc repro`."""
    copy = RepositoryCopy(tmp_path_factory.mktemp("melisma"))
    assert stages_run(copy.run("dvc", "repro")) == STAGES
    copy.commit("first run")
    return copy
