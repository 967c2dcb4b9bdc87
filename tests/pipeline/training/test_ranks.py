"""What processes that are not connected yet agree on."""

import socket
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.plumbing.rank import rank_of_this_process
from pipeline.training.ranks import ANSWER_VARIABLE, Ranks
from tests.ranks import run_on_ranks

LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "MASTER_ADDR", "MASTER_PORT", ANSWER_VARIABLE)


def settle(rank: int, folder: Path, fails: bool) -> None:
    """Write down what this rank was told, or how it failed."""

    def decide(claims: Mapping[int, str]) -> str:
        time.sleep(0.2)
        if fails:
            raise OSError("the disk is full")
        return f"decided by {rank}, who heard {dict(claims)}"

    try:
        result = Ranks().settle(decide, f"claim {rank}")
    except (OSError, RuntimeError) as error:
        result = f"{type(error).__name__}: {error}"
    (folder / str(rank)).write_text(result)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        (False, ["decided by 0, who heard {1: 'claim 1'}"] * 2),
        (True, ["OSError: the disk is full", "RuntimeError: Rank 0 could not begin: OSError: the disk is full"]),
    ],
)
def test_all_ranks_get_the_first_ones_answer_or_fail_with_it(tmp_path: Path, fails: bool, told: list[str]) -> None:
    run_on_ranks(settle, 2, tmp_path, fails)
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == told


def test_a_process_that_the_first_starts_later_gets_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Ranks()
    assert first.is_first
    assert first.settle(lambda claims: "step 4") == "step 4"
    monkeypatch.setenv("LOCAL_RANK", "3")
    later = Ranks()
    assert not later.is_first
    assert later.settle(lambda claims: "not asked") == "step 4"


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_launchers_tell_the_rank(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    assert rank_of_this_process() == 0
    monkeypatch.setenv(variable, "5")
    assert rank_of_this_process() == 5


def test_a_port_that_somebody_has_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        ranks = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in ranks.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ValueError, match=rf"has port {port} of this machine.*set MASTER_PORT to a free one"):
            Ranks()
