import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.plumbing.files import atomic_folder, atomic_write, read_csv, read_json, sweep, write_csv, write_json


def test_a_file_appears_whole_with_the_folders_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.wav"
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert (temporary.parent, temporary.suffix) == (path.parent, ".wav")
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"good": 1})

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("torn")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert read_json(path) == {"good": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [atomic_write, atomic_folder])
def test_a_full_disk_is_told_with_what_was_written(tmp_path: Path, write) -> None:
    with pytest.raises(OSError, match="No space left on device: '.*out'"), write(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match="reset by peer$"), write(tmp_path / "out"):
        raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    assert list(tmp_path.iterdir()) == []


def test_two_files_that_differ_in_suffix_can_be_written_at_once(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "x.json") as first, atomic_write(tmp_path / "x.csv") as second:
        first.write_text("1")
        second.write_text("2")
    assert [(tmp_path / name).read_text() for name in ("x.json", "x.csv")] == ["1", "2"]


def test_a_folder_replaces_the_old_one_with_all_it_held(tmp_path: Path) -> None:
    folder = tmp_path / "audio"
    for name in ("old.wav", "new.wav"):
        with atomic_folder(folder) as temporary:
            (temporary / name).write_text(name)
    assert [path.name for path in folder.iterdir()] == ["new.wav"]
    assert list(tmp_path.iterdir()) == [folder]


def test_an_error_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "audio"
    with atomic_folder(folder) as temporary:
        (temporary / "good.wav").write_text("")

    def fail() -> None:
        with atomic_folder(folder) as temporary:
            (temporary / "bad.wav").write_text("")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert [path.name for path in folder.iterdir()] == ["good.wav"]
    assert list(tmp_path.iterdir()) == [folder]


def test_json_keeps_values_and_reads_like_text(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, "ü"], "nan": math.nan}
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text()
    assert text.endswith("\n")
    assert "\n  " in text
    read = read_json(tmp_path / "x.json")
    assert read["a"] == value["a"]
    assert math.isnan(read["nan"])


def test_what_json_cannot_say_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": {1, 2}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b'{"a": ', b"\xff\xfe\xff", b""])
def test_torn_json_is_named_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.json is not valid JSON .* run its stage again") as caught:
        read_json(tmp_path / "x.json")
    assert not isinstance(caught.value, json.JSONDecodeError)


def test_missing_files_are_named(tmp_path: Path) -> None:
    for read in (read_json, read_csv):
        with pytest.raises(FileNotFoundError, match=r"x\.any does not exist; run the stage that writes it first"):
            read(tmp_path / "x.any")


def test_csv_columns_in_order_of_appearance_and_blanks_for_absent_cells(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", [{"b": 1, "a": 'x, "y"\nz'}, {"c": 0.5}])
    assert (tmp_path / "x.csv").read_text().splitlines()[0] == "b,a,c"
    assert read_csv(tmp_path / "x.csv") == [{"b": "1", "a": 'x, "y"\nz', "c": ""}, {"b": "", "a": "", "c": "0.5"}]


def test_csv_columns_that_are_given_hold(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", [], columns=["a", "b"])
    assert (tmp_path / "x.csv").read_text().strip() == "a,b"
    assert read_csv(tmp_path / "x.csv") == []
    with pytest.raises(ValueError, match="'c'"):
        write_csv(tmp_path / "x.csv", [{"c": 1}], columns=["a", "b"])


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    files = tmp_path / "prepared" / "codec"
    (files / f".audio.{process.pid}.partial").mkdir(parents=True)
    (files / f".audio.{process.pid}.partial" / "clip.wav").write_text("half")
    (files / f".codec.{process.pid}.partial.json").write_text("{")
    # Another process has the number by now: this one, which began after the file was written.
    (reused := files / f".tokens.{os.getpid()}.partial.safetensors").write_text("")
    os.utime(reused, (1e9, 1e9))
    (files / f".index.{os.getpid()}.partial.json").write_text("{")
    (files / "codec.json").write_text("{}")
    (files / f"notes.{process.pid}.partial.json").write_text("nobody's")
    assert len(sweep(tmp_path)) == 3
    assert sorted(path.name for path in files.iterdir()) == [
        f".index.{os.getpid()}.partial.json",
        "codec.json",
        f"notes.{process.pid}.partial.json",
    ]
    assert sweep(tmp_path / "nowhere") == []
