"""The families of faults, by name."""

import random
from collections.abc import Callable
from pathlib import Path

from tests.drills.damage import damage
from tests.drills.engines import engines
from tests.drills.interruptions import interruptions
from tests.drills.pages import pages
from tests.drills.ranks import ranks
from tests.drills.recordings import recordings
from tests.drills.settings import settings
from tests.drills.stores import stores
from tests.drills.tally import Tally
from tests.drills.trainings import trainings

FAMILIES: dict[str, Callable[[Path, random.Random, float], list[Tally]]] = {
    "settings": settings,
    "damage": damage,
    "stores": stores,
    "recordings": recordings,
    "pages": pages,
    "interruptions": interruptions,
    "trainings": trainings,
    "ranks": ranks,
    "engines": engines,
}
