"""What an optional extra adds is locked apart from what is installed anyway."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("beyond", REPOSITORY / "install/beyond.py")
assert spec is not None
assert spec.loader is not None
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

HASH = "    --hash=sha256:00\n"


def test_only_what_is_new_is_kept_with_its_hashes() -> None:
    lock, added = f"a==1 \\\n{HASH}b==2 ; sys_platform == 'linux' \\\n{HASH}", f"c==3 \\\n{HASH}{HASH}"
    assert module.beyond(lock, lock + added) == added
    with pytest.raises(ValueError, match="a==2 is another version"):
        module.beyond(lock, f"a==2 \\\n{HASH}")


def test_the_judges_lock_pins_their_extra_and_nothing_that_is_installed_anyway() -> None:
    lock, judges = ((REPOSITORY / name).read_text() for name in ("requirements.lock", "requirements-judges.lock"))
    pins = {requirement.partition("==")[0] for requirement in module.entries(judges)}
    assert pins.isdisjoint(requirement.partition("==")[0] for requirement in module.entries(lock))
    assert all("--hash=sha256:" in entry for entry in module.entries(judges).values())
    extra = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]["judges"]
    assert {requirement.partition("==")[0].partition(">=")[0] for requirement in extra} <= pins
