"""The command `compare`: from names to a verdict, a page, and a champion."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.comparison.comparing import compare_names
from pipeline.comparison.configuration import CompareConfig
from pipeline.comparison.listing import as_json
from pipeline.comparison.page import write_page
from pipeline.comparison.promotion import promote
from pipeline.comparison.terminal import terminal_text

log = logging.getLogger(__name__)


def compare(values: Mapping[str, Any], config: CompareConfig) -> None:
    """Compare, write the page, move the champion if that is asked for, and print what came out.

    Args:
        values: the composed configuration.
        config: what it says of this command.
    """
    comparison = compare_names(config.compared, values)
    listing = as_json(comparison)
    if config.page is not None:
        page = write_page(comparison, Path(config.page), values["report"]["n_examples"])
        listing["page"] = str(page)
        log.info("Hear both side by side: open %s in a browser.", page.resolve().as_uri())
    if config.promote:
        listing["promoted"] = promote(comparison, values["tracking"])
    print(json.dumps(listing) if config.output == "json" else terminal_text(comparison))
