"""Stage 1: a corpus to a codec, token shards and what real speech measures.

Writes data/prepared. Recordings that cannot be used are listed with the reason in data/prepared/manifest.csv.

  python -m pipeline.prepare_data
  python -m pipeline.prepare_data data=folder data.root=/path/to/audio codec=mel_rvq_8x256
  python -m pipeline.prepare_data preparation=ray data=folder data.root=/shared/audio paths.cache=/shared/cache
"""

import logging
from pathlib import Path
from typing import Any

from pipeline.configuration.composed import Folders, cache_folder
from pipeline.entry.command import command
from pipeline.plumbing.locations import scheme_of
from pipeline.plumbing.redaction import redacted

log = logging.getLogger(__name__)


@command(groups=("data", "codec", "preparation", "debug"), writes=("prepared", "cache"))
def main(values: dict[str, Any], folders: Folders) -> None:
    """Write data/prepared."""
    # Torch and all that stands on it take seconds to import: mistakes are told before.
    from pipeline.preparation.prepare import prepare

    if scheme_of(values["paths"]["prepared"]):
        raise ValueError(
            f"paths.prepared is {redacted(values['paths']['prepared'])}, where trainings can read and nothing is "
            "prepared; prepare into a folder, and copy it there."
        )
    prepared = Path(values["paths"]["prepared"])
    if (card := prepare(values, prepared, cache_folder(values["paths"]))) is not None:
        report(card, prepared)


def report(card: dict[str, Any], prepared: Path) -> None:
    """Say what was prepared."""
    sizes = ", ".join(f"{row['seconds'] / 60:.1f} min {split}" for split, row in card["splits"].items())
    log.info("%s: %s; %d of %d recordings rejected.", prepared, sizes, card["rejected_count"], card["recordings"])


if __name__ == "__main__":
    main()
