"""Kills, full disks and folders that cannot be written to, at every file operation of every stage."""

import errno
import random
import shutil
import signal
from functools import partial
from pathlib import Path

from tests.drills.injection import Fault, in_another_process
from tests.drills.stages import STAGES, Workplace
from tests.drills.tally import Family, LostError, Tally, table

REFUSALS = {"full disk": errno.ENOSPC, "folder without permission": errno.EACCES, "read-only disk": errno.EROFS}


def interruptions(root: Path, chance: random.Random, seconds: float, stages: tuple[str, ...] = STAGES) -> list[Tally]:
    """Interrupt stages at file operations, run them again, and compare every byte with an undisturbed run.

    Half of the time goes into kills: at every operation where the time allows, else at operations drawn from all.
    """
    workplace = Workplace(root / "stages")
    workplace.root.mkdir(parents=True)
    counts = workplace.build(stages)
    tallies = []
    share = seconds / len(stages)
    for stage in stages:
        kills = Family(f"kill at a file operation: {stage}", chance, share / 2)
        for operation in chance.sample(range(counts[stage]), counts[stage]):
            if not kills.has_time and kills.tally.tries:
                break
            kills.attempt(f"operation {operation}", partial(_interrupt, workplace, stage, Fault(operation)))
        refusals = Family(f"full, read-only or forbidden disk: {stage}", chance, share / 2)
        while refusals.has_time or not refusals.tally.tries:
            what, fault = _refusal(chance, counts[stage])
            refusals.attempt(what, partial(_interrupt, workplace, stage, fault))
        tallies += [kills.tally, refusals.tally]
        print(table(tallies[-2:]), flush=True)
    shutil.rmtree(workplace.root)
    shutil.rmtree(workplace.reference)
    return tallies


def _refusal(chance: random.Random, operations: int) -> tuple[str, Fault]:
    """A disk that refuses from some operation on, or that takes files of some size at most."""
    if chance.random() < 0.4:
        size = int(10 ** chance.uniform(0, 6))
        return f"files of at most {size} bytes", Fault(file_bytes=size)
    what = chance.choice(sorted(REFUSALS))
    operation = chance.randrange(operations)
    return f"{what} from operation {operation} on", Fault(operation, REFUSALS[what])


def _interrupt(workplace: Workplace, stage: str, fault: Fault) -> None:
    workplace.begin(stage)
    ended = in_another_process(workplace.work(stage), workplace.root, fault)
    if not ended.was_told:
        how = "it hung" if ended.status == -signal.SIGALRM else f"it ended with {ended.status}: {ended.said}"
        raise LostError(how)
    if ended.status == 0:
        workplace.compare(stage)
        return
    again = in_another_process(workplace.work(stage), workplace.root, Fault())
    if again.status != 0:
        raise LostError(f"the next run ended with {again.status}: {again.said}")
    workplace.compare(stage)
