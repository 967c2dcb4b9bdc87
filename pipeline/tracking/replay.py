"""Deliver what a run kept in its journal while the store was away.

python -m pipeline.tracking.replay outputs/tracking_journal.jsonl [--uri http://localhost:5000]
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.plumbing.redaction import redacted
from pipeline.tracking.delivery import RejectedError, batch, deliver
from pipeline.tracking.journal import Journal, owner
from pipeline.tracking.reachability import check_reachable
from pipeline.tracking.store import Store, asking

log = logging.getLogger(__name__)


def replay(path: Path, uri: str | None = None) -> int:
    """Deliver every record of a journal and delete the file; return how many the store took.

    Args:
        path: the journal.
        uri: where to deliver; None takes the store that the journal names, which is written without credentials.

    Raises:
        ValueError: when the file is no journal, or its run is still going on.
        pipeline.tracking.store.StoreUnavailableError: when the store goes away again; the rest stays in the file.
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
    store = Store(target)
    journal = Journal(path, named_store)
    taken = 0
    try:
        while journal.pending:
            records = batch(journal.front())
            if not records:
                continue
            try:
                with asking(store.uri):
                    deliver(store, records)
                taken += len(records)
            except RejectedError as error:
                log.warning(
                    "The store refused %s of run %s: %s", records[0].kind, records[0].run_id, redacted(str(error))
                )
            journal.delivered(len(records))
    finally:
        journal.close()
    return taken


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking.replay", description=__doc__.splitlines()[0])
    parser.add_argument("journal", type=Path, help="the file that the run reported")
    parser.add_argument("--uri", help="the tracking URI to deliver to (default: the one in the journal)")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        taken = replay(options.journal, options.uri)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    target = f" to {redacted(options.uri)}" if options.uri else ""
    print(f"{taken} records delivered{target}; {options.journal} is removed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
