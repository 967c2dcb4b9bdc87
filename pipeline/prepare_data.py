"""Stage 1: a corpus to a codec, token shards and what real speech measures.

python -m pipeline.prepare_data [data=folder data.root=/path/to/audio …]
"""

import logging
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from pipeline.configuration.composed import plain

log = logging.getLogger(__name__)


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    """Write data/prepared."""
    # Torch and all that stands on it take seconds to import: mistakes are told before.
    from pipeline.preparation.prepare import prepare

    prepared = Path(config.paths.prepared)
    report(prepare(plain(config), prepared, Path(config.paths.cache)), prepared)


def report(card: dict[str, Any], prepared: Path) -> None:
    """Say what was prepared."""
    sizes = ", ".join(f"{row['seconds'] / 60:.1f} min {split}" for split, row in card["splits"].items())
    log.info("%s: %s; %d of %d recordings rejected.", prepared, sizes, card["rejected_count"], card["recordings"])


if __name__ == "__main__":
    main()
