"""Files compared with the checksums that were written beside them, without holding anybody up."""

import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path

# Bytes that are read at once, in a fraction of a second; more are read in the background.
AT_ONCE = 64 * 2**20


class Verification:
    """Reads files and compares their SHA-256: at once where they are small, else in a thread beside the work.

    The processes of one machine read the same files: only its first reads large ones.

    Args:
        expected: the SHA-256 of each file, in hexadecimal.
        remedy: what to do about a file that has changed.

    Raises:
        ValueError: naming a small file whose content has changed.
    """

    def __init__(self, expected: Mapping[Path, str], remedy: str) -> None:
        self._expected = dict(expected)
        self._remedy = remedy
        self._found: Exception | None = None
        self._thread: threading.Thread | None = None
        if sum(path.stat().st_size for path in self._expected) <= AT_ONCE:
            self._work()
            self.check()
        elif os.environ.get("LOCAL_RANK", "0") == "0":
            self._thread = threading.Thread(target=self._work, name="verifying", daemon=True)
            self._thread.start()

    def check(self) -> None:
        """Raise what has been found so far.

        Raises:
            ValueError: naming a file whose content has changed.
            OSError: when a file cannot be read.
        """
        if self._found is not None:
            raise self._found

    def finish(self) -> None:
        """Wait until everything has been read, and raise what was found, as `check` does."""
        if self._thread is not None:
            self._thread.join()
        self.check()

    def _work(self) -> None:
        try:
            for path, expected in self._expected.items():
                with path.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
                if found != expected:
                    raise ValueError(f"{path} has changed since it was written (SHA-256 {found}); {self._remedy}.")
        except (OSError, ValueError) as error:
            self._found = error
