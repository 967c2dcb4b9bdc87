"""Break everything that can break, and print one table of fault, tries, survived, lost.

python -m tests.drills [--quick] [--seed 1] [--minutes 2] [--only tokens stores …] [--soak 3600]
"""

import argparse
import logging
import os
import random
import sys
import tempfile
import time
from pathlib import Path

# One thread computes the same bits each time, and threads do not outlive a fork.
os.environ["OMP_NUM_THREADS"] = "1"

import torch

from tests.drills.families import FAMILIES
from tests.drills.stages import import_everything
from tests.drills.tally import Tally, table

QUICK_SECONDS = 5.0


def drill(only: list[str], seed: int, seconds: float) -> list[Tally]:
    """Try the families of faults, each for so many seconds."""
    tallies: list[Tally] = []
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        for name in only:
            root = Path(folder, name).resolve()
            root.mkdir()
            found = FAMILIES[name](root, random.Random(f"{seed}/{name}"), seconds)
            print(table(found), flush=True)
            tallies += found
    return tallies


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds for each family")
    parser.add_argument("--seed", type=int, default=1, help="of every choice; the same seed breaks the same things")
    parser.add_argument("--minutes", type=float, default=2.0, help="for each family")
    parser.add_argument("--only", nargs="+", choices=sorted(FAMILIES), default=list(FAMILIES), help="these families")
    parser.add_argument("--soak", type=float, default=0.0, help="seconds to go round all families again and again")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    import_everything()
    seconds = QUICK_SECONDS if options.quick else 60 * options.minutes
    tallies = drill(options.only, options.seed, seconds)
    began, rounds = time.monotonic(), 0
    while time.monotonic() < began + options.soak:
        rounds += 1
        tallies += drill(options.only, options.seed + rounds, QUICK_SECONDS)
    print(f"\n{table(merged(tallies))}")
    return 1 if any(tally.losses for tally in tallies) else 0


def merged(tallies: list[Tally]) -> list[Tally]:
    """One tally for each fault, of all rounds."""
    by_fault: dict[str, Tally] = {}
    for tally in tallies:
        total = by_fault.setdefault(tally.fault, Tally(tally.fault, skipped=tally.skipped))
        total.tries += tally.tries
        total.seconds += tally.seconds
        total.losses += tally.losses
    return list(by_fault.values())


if __name__ == "__main__":
    sys.exit(main())
