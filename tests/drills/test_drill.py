"""A quick part of the drill: a few faults of each family that needs no other process for long."""

import random
from pathlib import Path

import pytest

from tests.drills.families import FAMILIES
from tests.drills.injection import Fault, in_another_process
from tests.drills.tally import Family, LostError, Tally, table


@pytest.mark.parametrize("name", ["settings", "damage", "pages"])
def test_a_family_loses_nothing(name: str, tmp_path: Path) -> None:
    tallies = FAMILIES[name](tmp_path, random.Random(1), 2.0)
    assert sum(tally.tries for tally in tallies) > 0
    assert not [loss for tally in tallies for loss in tally.losses], table(tallies)


def test_what_is_lost_is_told() -> None:
    family = Family("a fault", random.Random(1), 1.0)

    def lose() -> None:
        raise LostError("everything")

    family.attempt("first", lose)
    family.attempt("second", lambda: None)
    shown = table([family.tally, Tally("another", skipped="no browser")])
    assert "LOST a fault: first: everything" in shown
    assert shown.splitlines()[1].split()[2:5] == ["2", "1", "1"]
    assert "not tried: no browser" in shown


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        (Fault(), 0, "2"),
        (Fault(1), -9, ""),
        (Fault(1, 28), 2, "No space left"),
        (Fault(file_bytes=2), 2, "File too large"),
    ],
    ids=["none", "kill", "full disk", "small files"],
)
def test_a_fault_happens_where_it_is_wanted(tmp_path: Path, fault: Fault, status: int, said: str) -> None:
    def work() -> None:
        (tmp_path / "a").write_text("first")
        (tmp_path / "a").rename(tmp_path / "b")

    ended = in_another_process(work, tmp_path, fault)
    assert ended.status == status
    assert said in ended.said
