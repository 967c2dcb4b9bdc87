"""Files fetched from wherever fsspec reaches: several at once, each whole or not at all, in spite of a poor network."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from pipeline.plumbing.files import atomic_write
from pipeline.plumbing.locations import LackingError, file_system, plainly
from pipeline.plumbing.redaction import redacted

log = logging.getLogger(__name__)

T = TypeVar("T")
# Files that are fetched at once.
CONNECTIONS = 16
# Seconds before a request is made again.
WAITS = (1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Download:
    """A file to be fetched.

    Attributes:
        location: its URL.
        target: where to.
        size: its bytes.
        sha256: in hexadecimal; None where nobody knows.
    """

    location: str
    target: Path
    size: int
    sha256: str | None = None


def download(downloads: Iterable[Download], description: str) -> None:
    """Fetch files; what is there already, of the right size, is not fetched again.

    Raises:
        OSError: one cannot be fetched, or is another than expected, however often it is tried. The others are kept.
    """
    pending = [one for one in downloads if not (one.target.is_file() and one.target.stat().st_size == one.size)]
    if not pending:
        return
    with (
        tqdm(total=sum(one.size for one in pending), desc=description, unit="B", unit_scale=True, disable=None) as bar,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        futures = {pool.submit(persistently, lambda one=one: _fetch(one)): one for one in pending}
        try:
            for future in as_completed(futures):
                future.result()
                bar.update(futures[future].size)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def download_anew(location: str, target: Path) -> None:
    """Fetch a file whose size nobody knows, also where there is one already.

    Raises:
        OSError: it cannot be fetched, however often it is tried.
    """

    def request() -> None:
        with atomic_write(target) as temporary, plainly(location):
            file_system(location).get_file(location, str(temporary))

    persistently(request)


def persistently(request: Callable[[], T]) -> T:
    """What a request returns, which is made again when the network or the server fails.

    Raises:
        OSError: the last attempt's; at once where another one would not help.
    """
    for wait in WAITS:
        try:
            return request()
        except (FileNotFoundError, PermissionError, LackingError):
            raise
        except ConnectionError as error:
            log.warning("%s Trying again in %g s.", error, wait)
            time.sleep(wait)
    return request()


def _fetch(one: Download) -> None:
    with atomic_write(one.target) as temporary:
        with plainly(one.location):
            file_system(one.location).get_file(one.location, str(temporary))
        _check(one, temporary)


def _check(one: Download, fetched: Path) -> None:
    size = fetched.stat().st_size
    if size != one.size:
        raise ConnectionError(f"{redacted(one.location)} came with {size} of its {one.size} bytes.")
    if one.sha256 is None:
        return
    with fetched.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != one.sha256:
            raise ConnectionError(f"{redacted(one.location)} holds other bytes than its index says.")
