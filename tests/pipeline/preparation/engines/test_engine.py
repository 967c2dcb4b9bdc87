"""Processes, and parts by hand: the same bytes as one process writes, and a rerun does what is missing."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from pipeline.preparation import encoding
from pipeline.preparation.prepare import prepare
from tests.pipeline.preparation.engines.conftest import contents


@pytest.fixture
def shards(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards that this process writes."""
    written: list[str] = []
    write = encoding.write_shard

    def note(path: Path, *arguments: object) -> None:
        written.append(f"{path.parent.name}/{path.stem}")
        write(path, *arguments)

    monkeypatch.setattr(encoding, "write_shard", note)
    return written


def test_two_processes_write_what_one_does(composed, expected, tmp_path: Path) -> None:
    prepare(composed("data.workers=2"), tmp_path / "prepared", tmp_path / "cache")
    assert contents(tmp_path / "prepared") == expected
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"preparing.lock"}


def test_parts_by_hand_make_the_whole(composed, expected, tmp_path: Path, shards: list[str]) -> None:
    prepared, cache = tmp_path / "prepared", tmp_path / "cache"

    def do(step: str, part: str | None = None) -> object:
        return prepare(
            composed(f"preparation.step={step}", *([f"preparation.shard={part}"] if part else [])), prepared, cache
        )

    for part in ("2/3", "1/3"):
        assert do("inspect", part) is None
    with pytest.raises(
        ValueError, match=r"8 of 26 shards of inspect are missing: recording 3; recording 6.*and 3 more"
    ):
        do("plan")
    do("inspect", "3/3")
    assert do("plan") is None
    with pytest.raises(ValueError, match=r"of encode_long are missing.*preparation\.step=encode_long"):
        do("encode", "1/2")
    for part in ("1/2", "2/2"):
        do("encode_long", part)
    n_long = len(shards)
    do("encode", "2/2")
    odd = shards[n_long:]
    with pytest.raises(
        ValueError, match=r"shards of encode are missing: train/shard_00000; .*preparation\.step=encode"
    ):
        do("finish")
    assert not prepared.exists()
    # Whoever comes last does what is left, whatever the parts were.
    do("encode")
    assert len(shards) == len(set(shards))
    assert odd
    card = do("finish")
    assert isinstance(card, dict)
    assert card["rejected_count"] == 2
    assert contents(prepared) == expected
    assert {path.name for path in cache.iterdir()} == {"preparing.lock"}


@pytest.mark.parametrize(("step", "first"), [("encode", "plan"), ("finish", "plan"), ("plan", "inspect")])
def test_a_step_without_the_one_before_names_it(composed, tmp_path: Path, step: str, first: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"preparation\.step={first}"):
        prepare(composed(f"preparation.step={step}"), tmp_path / "prepared", tmp_path / "cache")


def test_other_settings_in_between_do_not_mix(composed, expected, tmp_path: Path, shards: list[str]) -> None:
    prepared, cache = tmp_path / "prepared", tmp_path / "cache"
    for step in ("inspect", "plan", "encode_long"):
        prepare(composed(f"preparation.step={step}"), prepared, cache)
    other = prepare(composed("data.seed=2"), prepared, cache)
    assert other is not None
    assert contents(prepared) != expected
    shards.clear()
    prepare(composed("preparation.step=encode"), prepared, cache)
    assert shards
    assert not any(name.startswith("long_recordings/") for name in shards)
    prepare(composed("preparation.step=finish"), prepared, cache)
    assert contents(prepared) == expected


def test_a_worker_that_dies_once_costs_nothing(composed, expected, tmp_path: Path, monkeypatch) -> None:
    write, died = encoding.write_shard, tmp_path / "died"

    def die_once(path: Path, *arguments: object) -> None:
        if path.parent.name == "train" and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, *arguments)

    monkeypatch.setattr(encoding, "write_shard", die_once)
    prepare(composed("data.workers=2"), tmp_path / "prepared", tmp_path / "cache")
    assert died.exists()
    assert contents(tmp_path / "prepared") == expected


def test_a_shard_that_kills_every_worker_is_named_and_the_others_are_kept(
    composed, expected, tmp_path: Path, monkeypatch
) -> None:
    write = encoding.write_shard

    def die(path: Path, *arguments: object) -> None:
        if (path.parent.name, path.stem) == ("train", "shard_00002"):
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(encoding, "write_shard", die)
        with pytest.raises(RuntimeError, match=r"train/shard_00002 kills its process.*data\.workers.*are kept"):
            prepare(composed("data.workers=2"), tmp_path / "prepared", tmp_path / "cache")
    (before,) = (tmp_path / "cache").glob("prepared-*/train/shard_00000.bin")
    kept = before.stat().st_mtime_ns
    second = {path.name: path.stat().st_ino for path in before.parent.glob("*.bin")}
    assert "shard_00002.bin" not in second
    prepare(composed("data.workers=2"), tmp_path / "prepared", tmp_path / "cache")
    assert contents(tmp_path / "prepared") == expected
    assert (tmp_path / "prepared/train/shard_00000.bin").stat().st_mtime_ns == kept


def test_what_another_machine_left_half_written_is_not_taken_along(composed, expected, tmp_path: Path) -> None:
    prepared, cache = tmp_path / "prepared", tmp_path / "cache"
    for step in ("inspect", "plan"):
        prepare(composed(f"preparation.step={step}"), prepared, cache)
    (work,) = cache.glob("prepared-*")
    (work / "train").mkdir()
    (work / "train" / ".shard_00001.12@elsewhere.partial.bin").write_bytes(b"half")
    shutil.copy(work / "plan.sqlite", work / ".plan.34@elsewhere.partial.sqlite")
    prepare(composed(), prepared, cache)
    assert contents(prepared) == expected
