"""Ranks that die, stop, are told to leave, diverge, or are configured differently."""

import random
from pathlib import Path

from tests.drills.tally import Family, LostError, Tally
from tests.pipeline.launched_ranks import ONE_DEVICE, TWO_RANKS, launch
from tests.prepared_tokens import write_prepared_tokens

PATIENCE = ["strategy.rank_late_seconds=4", "strategy.rank_lost_seconds=12"]
# What happens to the last of two ranks, or with both.
INTERRUPTIONS = ("SIGKILL 3", "SIGSTOP 3", "SIGTERM 4", "save 4", "SIGKILL 7", "SIGSTOP 8")
DIVERGING = ["optimizer.lr=1e30", "trainer.gradient_clip_val=null"]


def ranks(root: Path, chance: random.Random, seconds: float) -> list[Tally]:
    """Let something happen to one of two ranks; both end, and one device finishes what they began."""
    family = Family("rank dead, stopped, told to leave, diverging or configured otherwise", chance, seconds)
    survivals = dict.fromkeys(INTERRUPTIONS, _interrupt) | {"diverging": _diverge, "configured otherwise": _refuse}
    faults = list(survivals)
    chance.shuffle(faults)
    for number, fault in enumerate(faults):
        if not family.has_time and family.tally.tries:
            break
        workplace = root / f"ranks-{number}"
        write_prepared_tokens(workplace / "prepared")
        family.attempt(fault, lambda: survivals[fault](workplace, fault))  # noqa: B023 - called now
    return [family.tally]


def _interrupt(workplace: Path, interruption: str) -> None:
    codes, printed = launch(workplace, [*TWO_RANKS, *PATIENCE], interruption=interruption)
    if None in codes:
        raise LostError(f"the ranks ended with {codes}, which is a hang")
    codes, printed = launch(workplace, ONE_DEVICE, n_ranks=1)
    if codes != [0] or not (workplace / "outputs" / "train" / "metrics.json").exists():
        raise LostError(f"one device cannot finish: {codes}, {printed[-500:]}")


def _diverge(workplace: Path, _: str) -> None:
    codes, printed = launch(workplace, [*TWO_RANKS, *PATIENCE, *DIVERGING])
    if None in codes or 0 in codes:
        raise LostError(f"ranks whose loss is no number ended with {codes}")
    if "ERROR: " not in printed:
        raise LostError(f"nobody says why: {printed[-500:]}")


def _refuse(workplace: Path, _: str) -> None:
    codes, printed = launch(workplace, [*TWO_RANKS, *PATIENCE], of_last=("optimizer.lr=0.5",))
    if None in codes or 0 in codes:
        raise LostError(f"ranks with different settings ended with {codes}")
    if "optimizer.lr is 0.5 there" not in printed:
        raise LostError(f"nobody says which setting differs: {printed[-500:]}")
