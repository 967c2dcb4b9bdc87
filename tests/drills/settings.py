"""Every leaf of the configuration set wrong."""

import random
from pathlib import Path

from tests.drills.tally import Family, LostError, Tally
from tests.pipeline.configuration.wrong_settings import OTHERS, WRONG, composed, fault, file_of, leaves


def settings(root: Path, chance: random.Random, seconds: float) -> list[Tally]:
    """Set leaves wrong, in an order drawn anew: refused in one sentence that names the key, or harmless."""
    family = Family("setting of a wrong value", chance, seconds)
    configurations = [(composed(overrides), file_of(overrides)) for overrides in ("", *OTHERS)]
    cases = [(values, file, key, name) for values, file in configurations for key in leaves(values) for name in WRONG]
    chance.shuffle(cases)
    for values, file, key, name in cases:
        if not family.has_time and family.tally.tries:
            break
        family.attempt(f"{key} {name}", lambda case=(values, file, key, name): _set(*case))
    return [family.tally]


def _set(values: dict[str, object], file: str, key: str, name: str) -> None:
    if (found := fault(values, key, name, file)) is not None:
        raise LostError(found)
