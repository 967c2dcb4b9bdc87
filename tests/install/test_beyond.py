"""What an optional extra adds is locked apart from what is installed anyway."""

import re
import tomllib

import pytest

from tests.install.scripts import REPOSITORY, load_script

module = load_script("beyond")

HASH = "    --hash=sha256:00\n"


def test_only_what_is_new_is_kept_with_its_hashes() -> None:
    lock, added = f"a==1 \\\n{HASH}b==2 ; sys_platform == 'linux' \\\n{HASH}", f"c==3 \\\n{HASH}{HASH}"
    assert module.beyond(lock, lock + added) == added
    with pytest.raises(ValueError, match="a==2 is another version"):
        module.beyond(lock, f"a==2 \\\n{HASH}")


@pytest.mark.parametrize(("group", "extras"), [("judges", ["judges"]), ("cluster", ["ray", "s3", "servers"])])
def test_a_lock_pins_its_extras_and_nothing_that_is_installed_anyway(group: str, extras: list[str]) -> None:
    lock, beyond = ((REPOSITORY / name).read_text() for name in ("requirements.lock", f"requirements-{group}.lock"))
    pins = {requirement.partition("==")[0] for requirement in module.entries(beyond)}
    assert pins.isdisjoint(requirement.partition("==")[0] for requirement in module.entries(lock))
    assert all("--hash=sha256:" in entry for entry in module.entries(beyond).values())
    optional = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = [requirement for extra in extras for requirement in optional[extra]]
    assert {re.split(r"[\[<>=]", requirement)[0] for requirement in wanted} <= pins
