"""The model that the registry calls its champion."""

from pipeline.comparison.finding.found import Found, Places
from pipeline.tracking.registry import CHAMPION, champion_export


def find_champion_model(places: Places) -> Found:
    """The champion, by its export.

    Raises:
        FileNotFoundError: while there is none.
        pipeline.tracking.store.StoreUnavailableError: when the store cannot be used.
    """
    return Found(CHAMPION, CHAMPION, export=champion_export(places.tracking, places.repository))
