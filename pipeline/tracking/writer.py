"""The thread between a run and its store: a store that is slow or away costs the training nothing."""

import logging
import threading
import time

from pipeline.plumbing.redaction import redacted
from pipeline.tracking.delivery import RejectedError, batch, deliver, may_pass
from pipeline.tracking.journal import Journal, Record
from pipeline.tracking.reachability import cause
from pipeline.tracking.store import Store

log = logging.getLogger(__name__)

# Records of half a second share a request.
GATHER = 0.5
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
# Attempts after which others go first, if the store takes those; if the error is this code's, the record is given up.
ATTEMPTS = 3
# While closing: how long a store that is away is asked again, how long one that says nothing at all is waited for, and
# one that takes record after record, but slowly.
LAST_ATTEMPTS = 5.0
PATIENCE = 60.0
LONGEST_END = 120.0


class BackgroundWriter:
    """Delivers a journal to its store, in order, from a thread of its own.

    Args:
        journal: what to deliver; what it holds already goes first.
        store: who receives it.
    """

    def __init__(self, journal: Journal, store: Store) -> None:
        self.journal = journal
        self.store = store
        self._arrived = threading.Event()
        self._closing = threading.Event()
        self._deadline = self._end = float("inf")
        self._away_since: float | None = None
        self._attempts = 0
        self._disk_full = False
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()
        if journal.pending:
            self._arrived.set()

    def submit(self, record: Record) -> None:
        """Take a record; returns as soon as it is in the journal. A full disk costs the record, not the training."""
        try:
            self.journal.append(record)
        except OSError as error:
            if not self._disk_full:
                log.warning("%s cannot be written (%s): records are lost.", self.journal.path, error)
            self._disk_full = True
            return
        self._disk_full = False
        self._arrived.set()

    def finish(self) -> None:
        """Begin to deliver what is left; `close` waits for it."""
        now = time.monotonic()
        self._deadline, self._end = now + LAST_ATTEMPTS, now + LONGEST_END
        self._closing.set()
        self._arrived.set()

    def close(self) -> int:
        """Deliver what is left, in bounded time, and return how many records stay in the journal."""
        if not self._closing.is_set():
            self.finish()
        pending, last_progress = self.journal.pending, time.monotonic()
        while self._thread.is_alive() and time.monotonic() < last_progress + PATIENCE:
            self._thread.join(GATHER)
            if self.journal.pending != pending:
                pending, last_progress = self.journal.pending, time.monotonic()
        kept = self.journal.pending
        if kept:
            log.warning(
                "The tracking store %s did not take everything: %d records kept in %s; "
                "replay with `python -m pipeline.tracking.replay %s`.",
                self.store.name,
                kept,
                self.journal.path,
                self.journal.path.parent,
            )
        if not self._thread.is_alive():
            self.journal.close()
        return kept

    def _work(self) -> None:
        pause = FIRST_PAUSE
        while self._wait() and time.monotonic() < self._end:
            records = batch(self.journal.front())
            if not records:  # the journal held nothing but damaged lines
                continue
            if self._deliver(records):
                self.journal.delivered(len(records))
                pause = FIRST_PAUSE
            elif time.monotonic() + (pause if self._closing.is_set() else 0) > self._deadline:
                return
            else:
                # A run that ends does not wait for the pause to pass.
                self._sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _wait(self) -> bool:
        """Wait for records; False when there are none, and there will be none."""
        while not self.journal.pending:
            if self._closing.is_set():
                return False
            self._arrived.wait()
            self._arrived.clear()
            self._closing.wait(GATHER)
        return True

    def _sleep(self, pause: float) -> None:
        if self._closing.is_set():
            time.sleep(min(pause, LAST_ATTEMPTS / 4))
        else:
            self._closing.wait(pause)

    def _deliver(self, records: list[Record]) -> bool:
        """Whether the batch is dealt with: taken, or refused for good."""
        try:
            deliver(self.store, records)
        except RejectedError as error:
            log.warning("The tracking store refused %s: %s", _summary(records), redacted(str(error)))
        except Exception as error:  # noqa: BLE001 - whatever fails on the way, the training goes on
            return self._failed(records, error)
        self._attempts = 0
        if self._away_since is not None:
            log.info(
                "The tracking store %s is back after %.0f s.", self.store.name, time.monotonic() - self._away_since
            )
            self._away_since = None
        return True

    def _failed(self, records: list[Record], error: Exception) -> bool:
        self._attempts += 1
        if self._attempts >= ATTEMPTS and self.store.takes_others(records[0].run_id):
            self._attempts = 0
            if not may_pass(self.store, error):
                log.warning("The tracking store failed on %s: %s", _summary(records), redacted(str(error)))
                return True
            self.journal.postpone(len(records))
        if self._away_since is None:
            self._away_since = time.monotonic()
            log.warning(
                "The tracking store %s is away (%s). The run goes on; its records are kept in %s.",
                self.store.name,
                redacted(cause(error)).removesuffix("."),
                self.journal.path,
            )
        return False


def _summary(records: list[Record]) -> str:
    names = sorted({key for record in records for key in record.values})
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return f"{records[0].kind} ({shown}) of run {records[0].run_id}"
