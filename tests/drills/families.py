"""The families of faults, by name."""

import random
from collections.abc import Callable
from pathlib import Path

from tests.drills.damage import damage, interrupted_trainings
from tests.drills.interruptions import interruptions
from tests.drills.pages import pages
from tests.drills.recordings import recordings
from tests.drills.settings import settings
from tests.drills.stores import stores
from tests.drills.tally import Tally

FAMILIES: dict[str, Callable[[Path, random.Random, float], list[Tally]]] = {
    "settings": settings,
    "damage": damage,
    "stores": stores,
    "recordings": recordings,
    "pages": pages,
    "interruptions": interruptions,
    "trainings": interrupted_trainings,
}
