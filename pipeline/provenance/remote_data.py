"""Prepared data behind a URL, read through a copy in the cache.

Packing draws the documents of any window from the whole corpus, so that a training needs every shard within its first
steps. Therefore all of them are fetched before it begins, once for all processes that share a cache, and no training
depends on the network afterwards. A copy is named by what the data are: others at the same URL have one of their own.
"""

import fcntl
import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pipeline.audio.splitting import SPLITS
from pipeline.plumbing.downloads import Download, download, persistently
from pipeline.plumbing.files import read_json, sweep_of_all_machines
from pipeline.plumbing.locations import file_system, plainly, scheme_of, size_of
from pipeline.plumbing.lock import in_turn
from pipeline.plumbing.redaction import redacted
from pipeline.provenance.exports import size_of as size_of_folder
from pipeline.provenance.prepared_data import IDENTITY, copy_folder, read_prepared_identity

log = logging.getLogger(__name__)

GB = 10**9
# What preparing calls files: others, as those that lead elsewhere, are none of ours.
PLAIN_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
INDICES = tuple(f"{split}/index.json" for split in SPLITS)


@dataclass(frozen=True)
class LocalCopy:
    """Prepared data on this machine's disk; a copy that nobody removes as long as this object lives.

    Attributes:
        folder: where they lie.
        hold: keeps others from removing a copy.
    """

    folder: Path
    hold: IO[str] | None = None


def local_copy(location: str, cache: Path, limit_gb: float) -> LocalCopy:
    """Prepared data where they lie on a disk; those behind a URL are copied into the cache unless they are there.

    Args:
        location: a folder, or its URL.
        cache: the folder that copies lie in, which processes may share.
        limit_gb: what all copies together may take; others give way that nobody reads, the longest unread first.

    Raises:
        OSError: the data cannot be reached, or are not there.
        ValueError: there is no room for them, or they are not whole.
    """
    if not scheme_of(location):
        return LocalCopy(Path(location))
    location = location.rstrip("/")
    folder = copy_folder(cache, persistently(lambda: _digest(location)))
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Held before it is looked for: nobody removes it in between.
    copy = LocalCopy(folder, _held(folder))
    if not folder.exists():
        with in_turn(folder.parent / "fetching.lock", f"Fetching {redacted(location)}", folder.parent):
            if not folder.exists():
                files = persistently(lambda: _listed(location))
                _make_room(folder, sum(files.values()), limit_gb, location)
                _fetch(location, files, folder)
    return copy


def _listed(location: str) -> dict[str, int]:
    """The files below a URL: their bytes, by their names relative to it."""
    with plainly(location):
        files = file_system(location)
        files.invalidate_cache()
        root = files._strip_protocol(location).rstrip("/") + "/"
        found = {name.removeprefix(root): info["size"] for name, info in files.find(location, detail=True).items()}
        # A web server's listing tells no sizes.
        return {
            name: size_of(f"{location}/{name}") if size is None else int(size)
            for name, size in found.items()
            if PLAIN_NAME.fullmatch(name)
        }


def _digest(location: str) -> str:
    """What the data behind a URL say that they are."""
    place = f"{location}/{IDENTITY}"
    with plainly(place):
        content = file_system(place).cat_file(place)
    try:
        digest = str(json.loads(content)["digest"])
        int(digest, 16)
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{redacted(place)} is no identity of prepared data.") from None
    return digest


def _fetch(location: str, files: Mapping[str, int], folder: Path) -> None:
    """Copy files; an interrupted call leaves those that are whole to the next one."""
    growing = folder.with_name(f"{folder.name}.growing")
    log.info("Fetching %s into %s.", redacted(location), folder)

    def of(names: Mapping[str, int], checksums: Mapping[str, str]) -> list[Download]:
        return [Download(f"{location}/{n}", growing / n, size, checksums.get(n)) for n, size in names.items()]

    first = {name: size for name, size in files.items() if name in (IDENTITY, *INDICES)}
    download(of(first, {}), "what it holds")
    download(of(files, _checksums(growing)), folder.name)
    # Tokens and codec are what their identity says, or something was changed in the meantime.
    try:
        read_prepared_identity(growing, f"copy them whole to {redacted(location)}")
    except ValueError:
        shutil.rmtree(growing)
        raise
    sweep_of_all_machines(growing)
    growing.rename(folder)


def _checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of every shard and its description, by their names, as the indices of the splits say."""
    found: dict[str, str] = {}
    for index in INDICES:
        if (folder / index).is_file():
            split = PurePosixPath(index).parent
            for shard in _shards(folder / index):
                found[f"{split / shard['name']}.bin"] = shard["sha256"]
                found[f"{split / shard['name']}.json"] = shard["description_sha256"]
    return found


def _shards(index: Path) -> list[Any]:
    try:
        return list(read_json(index)["shards"])
    except (KeyError, TypeError):
        return []  # the identity will not fit


def _held(folder: Path) -> IO[str]:
    """Keep a copy from being removed; its last use is noted. The system lets go when the process ends."""
    file = _use(folder).open("w")
    fcntl.flock(file, fcntl.LOCK_SH)
    file.write("\n")
    file.flush()
    return file


def _make_room(folder: Path, needed: int, limit_gb: float, location: str) -> None:
    """Remove other copies that nobody reads, until another one of `needed` bytes is within the limit."""
    others = [other for other in folder.parent.iterdir() if other.is_dir() and _use(other) != _use(folder)]
    sizes = {other: size_of_folder(other) for other in others}
    room = limit_gb * GB - sum(sizes.values())
    for other in sorted(others, key=lambda other: _use(other).stat().st_mtime if _use(other).exists() else 0.0):
        if room >= needed:
            break
        if _remove_unread(other):
            room += sizes[other]
    if room < needed:
        raise ValueError(
            f"{redacted(location)} takes {needed / GB:.3g} GB, and of the {limit_gb:g} GB of paths.cache_gb "
            f"{max(room, 0) / GB:.3g} are free in {folder.parent}; raise it, or end trainings that read other copies."
        )


def _remove_unread(folder: Path) -> bool:
    """Remove a copy unless a process reads it; returns whether it is gone."""
    with _use(folder).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        shutil.rmtree(folder)
        return True


def _use(folder: Path) -> Path:
    return folder.with_name(f"{folder.name.split('.')[0]}.in_use")
