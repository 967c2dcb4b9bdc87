"""What starts a training's processes, its workers and its servers: each loses some of them, and goes on."""

import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tests.drills.slurm_cluster import INSTALL, missing_programs
from tests.drills.tally import Family, LostError, Tally
from tests.drills.team import lacking


class Engine(NamedTuple):
    """Something that tests of their own start on this machine.

    Attributes:
        name: its own.
        marker: of its tests.
        tests: their file.
        missing: what has to be installed first.
    """

    name: str
    marker: str
    tests: str
    missing: str


def engines(root: Path, chance: random.Random, seconds: float) -> list[Tally]:
    """Run tests that start an engine, as many as there is time for, and at least one of each."""
    known = [
        Engine("SLURM", "slurm", "tests/drills/test_slurm.py", INSTALL if missing_programs() else ""),
        Engine("torchrun", "long", "tests/drills/test_elastic.py", ""),
        Engine(
            "Ray",
            "ray",
            "tests/pipeline/preparation/engines/test_ray_cluster.py",
            "" if find_spec("ray") else "make cluster",
        ),
        Engine("a team's servers", "servers", "tests/drills/test_team_servers.py", lacking()),
    ]
    return [_try(engine, root, chance, seconds / len(known)) for engine in known]


def _try(engine: Engine, root: Path, chance: random.Random, seconds: float) -> Tally:
    fault = f"process lost under {engine.name}"
    if engine.missing:
        return Tally(fault, skipped=engine.missing)
    family, options = Family(fault, chance, seconds), ["-m", engine.marker, "--basetemp", str(root / engine.marker)]
    tests = [line for line in _pytest(*options, "--collect-only", engine.tests).splitlines() if "::" in line]
    chance.shuffle(tests)
    for test in tests:
        if not family.has_time and family.tally.tries:
            break
        family.attempt(test.partition("::")[2], lambda: _survive(*options, test))  # noqa: B023 - called now
    return family.tally


def _survive(*arguments: str) -> None:
    try:
        _pytest(*arguments)
    except subprocess.CalledProcessError as error:
        raise LostError(error.stdout[-2000:]) from None


def _pytest(*arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "--no-header", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
