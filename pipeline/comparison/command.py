"""The command `compare`: from names to a verdict, a page, and a champion."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.comparison.comparing import compare_found, find_models
from pipeline.comparison.configuration import CompareConfig
from pipeline.comparison.finding.names import CHAMPION
from pipeline.comparison.listing import as_json
from pipeline.comparison.page import write_page
from pipeline.comparison.promotion import crown_first, promote
from pipeline.comparison.terminal import terminal_text

log = logging.getLogger(__name__)


def compare(values: Mapping[str, Any], config: CompareConfig) -> None:
    """Compare, write the page, move the champion if that is asked for, and print what came out.

    Args:
        values: the composed configuration.
        config: what it says of this command.
    """
    if config.promote and config.compared[0] == CHAMPION:
        (challenger,) = find_models(config.compared[1:], values)
        if crown_first(challenger, values["tracking"]):
            unopposed: dict[str, Any] = {"promoted": True, "verdict": None, "verdicts": {}, "comparisons": []}
            said = f"{challenger.label} is the first champion: there was none to hold it against."
            print(json.dumps(unopposed) if config.output == "json" else said)
            return
    comparison = compare_found(find_models(config.compared, values), values)
    listing = as_json(comparison)
    if config.page is not None:
        page = write_page(comparison, Path(config.page), values["report"]["n_examples"])
        listing["page"] = str(page)
        log.info("Hear both side by side: open %s in a browser.", page.resolve().as_uri())
    if config.output != "json":
        # Before the champion is moved: what was found is worth reading, whatever the registry says.
        print(terminal_text(comparison), flush=True)
    if config.promote:
        listing["promoted"] = promote(comparison, values["tracking"])
    if config.output == "json":
        print(json.dumps(listing))
