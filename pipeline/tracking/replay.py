"""Deliver what runs kept in their journals while the store was away.

python -m pipeline.tracking.replay [outputs ...] [--uri http://localhost:5000]

Takes journals, and folders to look for them in.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.plumbing.redaction import redacted
from pipeline.tracking.delivery import RejectedError, batch, deliver, may_pass
from pipeline.tracking.journal import WINDOW, Journal, Record, owner
from pipeline.tracking.reachability import cause, check_reachable
from pipeline.tracking.store import Store, asking

log = logging.getLogger(__name__)

JOURNALS = "tracking_*.jsonl"


def replay(path: Path, uri: str | None = None) -> int:
    """Deliver every record of a journal and delete the file; return how many the store took.

    Args:
        path: the journal.
        uri: where to deliver; None takes the store that the journal names, which is written without credentials.

    Raises:
        ValueError: when the file is no journal, or its run is still going on.
        pipeline.tracking.store.StoreUnavailableError: when the store goes away again; the rest stays in the file.
        ConnectionError: when the store takes some of it; the rest stays in the file.
    """
    found = owner(path)
    if found is None:
        raise ValueError(f"{path} is not a tracking journal; name a tracking_journal.jsonl that a run reported.")
    named_store, process = found
    if process is not None and not process.gone and not process.is_current:
        raise ValueError(f"{path} belongs to process {process.pid} on {process.host}; wait until it has ended.")
    target = uri or named_store
    with asking(target):
        check_reachable(target)
    journal = Journal(path, named_store)
    try:
        with asking(target):
            return _deliver_once(Store(target), journal)
    finally:
        journal.close()


def journals(places: Sequence[Path]) -> list[Path]:
    """The journals that are named, and those in the folders that are named, down to the jobs of a sweep.

    Raises:
        FileNotFoundError: when a place is not there.
    """
    found: list[Path] = []
    for place in places:
        if not place.exists():
            raise FileNotFoundError(f"{place} is not there; name a journal, or a folder of outputs.")
        found += [place] if place.is_file() else sorted(place.rglob(JOURNALS))
    return found


def _deliver_once(store: Store, journal: Journal) -> int:
    """Try each record once: what the store does not take while it takes others goes behind those, and stays."""
    taken, kept, reason = 0, 0, ""
    while journal.pending > kept:
        records = batch(journal.front(min(WINDOW, journal.pending - kept)))
        if not records:
            continue
        try:
            deliver(store, records)
        except RejectedError as error:
            log.warning("The store refused %s: %s", _named(records[0]), redacted(str(error)))
        except Exception as error:
            if not (may_pass(store, error) and store.takes_others(records[0].run_id)):
                raise
            reason = f"{_named(records[0])}: {redacted(cause(error))}"
            kept += len(records)
            journal.postpone(len(records))
            continue
        else:
            taken += len(records)
        journal.delivered(len(records))
    if kept:
        raise ConnectionError(f"{taken} records delivered; {kept} stay in {journal.path}. Not taken was {reason}.")
    return taken


def _named(record: Record) -> str:
    return f"{record.kind} {record.values.get('path', '')} of run {record.run_id}".replace("  ", " ")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking.replay", description=__doc__.splitlines()[0])
    parser.add_argument(
        "places",
        type=Path,
        nargs="*",
        default=[Path("outputs")],
        help="journals, or folders of them (default: outputs)",
    )
    parser.add_argument("--uri", help="the tracking URI to deliver to (default: the one in the journal)")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    target = f" to {redacted(options.uri)}" if options.uri else ""
    status = 0
    try:
        found = journals(options.places)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    if not found:
        print("Nothing was kept: every record has been delivered.")
    for journal in found:
        try:
            taken = replay(journal, options.uri)
        except (ValueError, OSError) as error:
            print(error, file=sys.stderr)
            status = 1
        else:
            print(f"{taken} records delivered{target}; {journal} is removed.")
    return status


if __name__ == "__main__":
    sys.exit(main())
