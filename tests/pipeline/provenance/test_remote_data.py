"""Prepared data behind a URL: copied once, whole or not at all, within what they may take."""

import http.server
import json
import logging
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.plumbing import downloads
from pipeline.provenance.prepared_data import COPIES, find_prepared, read_prepared_identity
from pipeline.provenance.remote_data import local_copy
from pipeline.tokens.dataset import TokenDataset
from tests.prepared_tokens import write_prepared_tokens


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    write_prepared_tokens(tmp_path / "prepared")
    return tmp_path / "prepared"


@pytest.fixture
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder of its own in fsspec's memory, where nobody waits before trying again."""
    monkeypatch.setattr(downloads, "WAITS", (0.0, 0.0))
    url = f"memory://{request.node.name}"
    yield url
    if (store := fsspec.filesystem("memory")).exists(url):
        store.rm(url, recursive=True)


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are fetched, one after another."""
    names: list[str] = []
    get = MemoryFileSystem.get_file

    def counting(self: MemoryFileSystem, path: str, target: str, **options: Any) -> None:
        names.append(path)
        get(self, path, target, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", counting)
    return names


def upload(folder: Path, url: str) -> None:
    store = fsspec.filesystem("memory")
    if store.exists(url):
        store.rm(url, recursive=True)
    store.put(str(folder), url, recursive=True)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_data_are_copied_once_and_byte_for_byte(
    prepared: Path, bucket: str, requested: list[str], tmp_path: Path
) -> None:
    upload(prepared, bucket)
    first = local_copy(f"{bucket}/", tmp_path / "cache", 1.0)
    assert content(first.folder) == content(prepared)
    assert len(requested) == len(set(requested)) == len(content(prepared))
    assert local_copy(bucket, tmp_path / "cache", 1.0).folder == first.folder
    assert len(requested) == len(content(prepared))
    # Later stages find them by what they are, whatever their URL.
    identity = read_prepared_identity(prepared)
    shutil.rmtree(prepared)
    assert find_prepared(identity.digest, identity.name, prepared, tmp_path / "cache") == first.folder


def test_a_folder_on_a_disk_is_read_where_it_is(prepared: Path, tmp_path: Path) -> None:
    assert local_copy(str(prepared), tmp_path / "cache", 1.0).folder == prepared
    assert not (tmp_path / "cache").exists()


def test_many_who_ask_at_once_share_one_copy(prepared: Path, bucket: str, requested: list[str], tmp_path: Path) -> None:
    upload(prepared, bucket)
    together = threading.Barrier(6)

    def rank(_: int) -> np.ndarray:
        together.wait()
        copy = local_copy(bucket, tmp_path / "cache", 1.0)
        return TokenDataset.open(copy.folder / "train")[3]

    with ThreadPoolExecutor(6) as pool:
        documents = list(pool.map(rank, range(6)))
    expected = TokenDataset.open(prepared / "train")[3]
    assert all((document == expected).all() for document in documents)
    assert len(requested) == len(set(requested))


def test_other_data_at_the_same_url_are_copied_anew(prepared: Path, bucket: str, tmp_path: Path) -> None:
    upload(prepared, bucket)
    first = local_copy(bucket, tmp_path / "cache", 1.0)
    write_prepared_tokens(prepared, seed=2)
    upload(prepared, bucket)
    second = local_copy(bucket, tmp_path / "cache", 1.0)
    assert first.folder != second.folder
    assert content(second.folder) == content(prepared)


def test_a_shard_that_is_not_what_its_index_says_is_refused(prepared: Path, bucket: str, tmp_path: Path) -> None:
    upload(prepared, bucket)
    path = f"{bucket}/train/shard_00000.bin"
    store = fsspec.filesystem("memory")
    store.pipe(path, b"\0" * store.size(path))
    with pytest.raises(ConnectionError, match=r"train/shard_00000.bin holds other bytes than its index says\.$"):
        local_copy(bucket, tmp_path / "cache", 1.0)
    store.pipe(path, (prepared / "train" / "shard_00000.bin").read_bytes())
    assert content(local_copy(bucket, tmp_path / "cache", 1.0).folder) == content(prepared)


def test_data_that_are_half_replaced_are_refused_and_nothing_is_left(
    prepared: Path, bucket: str, tmp_path: Path
) -> None:
    upload(prepared, bucket)
    store = fsspec.filesystem("memory")
    store.pipe(f"{bucket}/codec/codec.json", b'{"seed": 7}')
    with pytest.raises(ValueError, match=rf"does not hold the data .* copy them whole to {bucket}"):
        local_copy(bucket, tmp_path / "cache", 1.0)
    assert not [path for path in (tmp_path / "cache" / COPIES).iterdir() if path.is_dir()]


def test_what_is_not_there_is_said_at_once(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"identity.json does not exist"):
        local_copy(bucket, tmp_path / "cache", 1.0)
    fsspec.filesystem("memory").pipe(f"{bucket}/identity.json", b"[]")
    with pytest.raises(ValueError, match=r"identity.json is no identity of prepared data"):
        local_copy(bucket, tmp_path / "cache", 1.0)


def test_copies_give_way_unless_they_are_read(prepared: Path, bucket: str, tmp_path: Path) -> None:
    room_for_two = 2.5 * sum(map(len, content(prepared).values())) / 10**9

    def fetch(seed: int) -> Any:
        write_prepared_tokens(prepared, seed=seed)
        upload(prepared, bucket)
        return local_copy(bucket, tmp_path / "cache", room_for_two)

    read, unread = fetch(1), fetch(2).folder
    third = fetch(3)
    assert read.folder.exists()
    assert not unread.exists()
    with pytest.raises(ValueError, match=r"takes .* GB, and of the .* GB of paths.cache_gb .* are free .*; raise it"):
        fetch(4)
    assert read.folder.exists()
    assert third.folder.exists()


class Failing(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and breaks off in the middle of each shard as often as it is told to."""

    failures: dict[str, int]

    def do_GET(self) -> None:
        if self.path.endswith(".bin") and self.failures.get(self.path, self.failures["each"]) > 0:
            self.failures[self.path] = self.failures.get(self.path, self.failures["each"]) - 1
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half of it")
            self.close_connection = True
            return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, int]]]:
    """A web server, and how often it fails with each shard."""
    monkeypatch.setattr(downloads, "WAITS", (0.0, 0.0))
    failures = {"each": 0}
    handler = type("Handler", (Failing,), {"failures": failures})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(prepared))) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}", failures
        serving.shutdown()


def test_a_server_that_breaks_off_is_asked_again(
    server: tuple[str, dict[str, int]], prepared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, failures = server
    failures["each"] = 2
    with caplog.at_level(logging.WARNING):
        copy = local_copy(url, tmp_path / "cache", 1.0)
    assert content(copy.folder) == content(prepared)
    assert sum("Trying again" in message for message in caplog.messages) == 6


def test_a_server_that_stays_broken_is_told_of_and_the_rest_is_kept(
    server: tuple[str, dict[str, int]], prepared: Path, tmp_path: Path
) -> None:
    url, failures = server
    failures["each"] = 99
    with pytest.raises(ConnectionError, match=r"^http://.*/shard_00000.bin cannot be reached \(Client"):
        local_copy(url, tmp_path / "cache", 1.0)
    (growing,) = (tmp_path / "cache" / COPIES).glob("*.growing")
    kept = content(growing)
    assert json.loads(kept["identity.json"]) == json.loads((prepared / "identity.json").read_text())
    assert not [name for name in kept if name.endswith(".bin") or ".partial" in name]
    # As a process leaves it that is killed.
    (growing / "train" / ".shard_00000.1@elsewhere.partial.bin").write_bytes(b"half")
    failures.clear()
    failures["each"] = 0
    assert content(local_copy(url, tmp_path / "cache", 1.0).folder) == content(prepared)
