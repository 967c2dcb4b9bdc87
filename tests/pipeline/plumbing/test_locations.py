import os
from pathlib import Path

import fsspec
import pytest

from pipeline.plumbing.locations import (
    UnreachableError,
    beside,
    decompressed,
    expanded,
    fetched,
    folder_of,
    normalised,
    opened,
    plainly,
    size_of,
)


@pytest.mark.parametrize(
    ("folder", "name", "location"),
    [
        ("/a/b", "c.wav", "/a/b/c.wav"),
        ("/a/b", "../c.wav", "/a/c.wav"),
        ("/a/b", "/c.wav", "/c.wav"),
        ("/a/b", "s3://x/c.wav", "s3://x/c.wav"),
        ("/a/b", "file:///c%20d.wav", "/c d.wav"),
        ("s3://x/a/b", "c.wav", "s3://x/a/b/c.wav"),
        ("s3://x/a/b", "../../c.wav", "s3://x/c.wav"),
        ("s3://x", "c.wav", "s3://x/c.wav"),
        ("s3://x/a", "/c.wav", "/c.wav"),
    ],
)
def test_names_beside_a_folder(folder, name, location):
    assert beside(folder, name) == location


def test_folders_and_paths(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert normalised("a/../b.jsonl") == os.path.join(os.getcwd(), "b.jsonl")
    assert normalised("~/b.jsonl") == "/home/me/b.jsonl"
    assert folder_of("/a/b.jsonl") == "/a"
    assert folder_of("https://host/a/b.jsonl?c=/d") == "https://host/a"


def test_patterns_spell_names_out_and_find_files(tmp_path: Path):
    assert expanded("/a/{x,y}-{08..10}.tar") == [f"/a/{x}-{n}.tar" for x in "xy" for n in ("08", "09", "10")]
    for name in ("b.tar", "a.tar", "a[1].tar"):
        (tmp_path / name).touch()
    assert expanded(str(tmp_path / "?.tar")) == [str(tmp_path / name) for name in ("a.tar", "b.tar")]
    # A file whose own name looks like a pattern is that file.
    assert expanded([str(tmp_path / "a[1].tar")]) == [str(tmp_path / "a[1].tar")]
    with pytest.raises(FileNotFoundError, match="no file is named"):
        expanded(str(tmp_path / "*.jsonl"))


def test_files_elsewhere_are_found_fetched_and_read_in_parts():
    store = fsspec.filesystem("memory")
    store.pipe_file("/found/b.bin", bytes(range(100)))
    store.pipe_file("/found/a.bin", b"")
    found = expanded("memory://found/*.bin")
    assert [location.rpartition("/")[2] for location in found] == ["a.bin", "b.bin"]
    assert size_of(found[1]) == 100
    assert fetched(found[1], 10, 20) == bytes(range(10, 20))
    with opened(found[1]) as file:
        file.seek(90)
        assert file.read() == bytes(range(90, 100))
    with pytest.raises(FileNotFoundError, match="memory://found/none does not exist"):
        size_of("memory://found/none")


def test_what_is_compressed_in_an_unknown_way_is_named(tmp_path: Path, monkeypatch):
    monkeypatch.delitem(fsspec.compression.compr, "xz", raising=False)
    with pytest.raises(OSError, match=r"a.jsonl.xz is compressed in a way that is not read here"):
        decompressed(str(tmp_path / "a.jsonl.xz"))


class NoCredentialsError(Exception):
    """Called as botocore's."""


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (FileNotFoundError("b/x"), FileNotFoundError, r"s3://b/x\?X-Amz-Signature=\*\*\* does not exist"),
        (PermissionError("Access Denied"), PermissionError, "may not be read with these credentials; set AWS_PROFILE"),
        (NoCredentialsError("Unable"), UnreachableError, "is not read without credentials; set AWS_PROFILE"),
        (ImportError("Install s3fs"), UnreachableError, "cannot be read: install what reads s3:// with `make cluster`"),
        (TimeoutError("slow"), UnreachableError, r"cannot be reached \(TimeoutError: slow\)"),
    ],
)
def test_why_a_url_cannot_be_read_is_one_sentence_without_secrets(error, raised, said):
    with pytest.raises(raised, match=said) as found, plainly("s3://b/x?X-Amz-Signature=0123456789"):
        raise error
    assert "0123456789" not in str(found.value)


def test_a_server_that_does_not_answer_is_no_missing_file():
    with pytest.raises(UnreachableError, match="cannot be reached"), plainly("https://host/x"):
        raise FileNotFoundError("https://host/x") from ConnectionRefusedError("refused")
