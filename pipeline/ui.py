"""MLflow's page of the training runs, on this machine only.

python -m pipeline.ui [port=5001 tracking.experiment=…]
"""

import hydra
from omegaconf import DictConfig

from pipeline.configuration.composed import REPOSITORY, plain
from pipeline.configuration.settings import read_settings
from pipeline.tracking.config import TrackingConfig


@hydra.main(version_base=None, config_path="../conf", config_name="ui")
def main(config: DictConfig) -> None:
    """Serve the pages until interrupted."""
    # MLflow takes seconds to import: mistakes are told before.
    from pipeline.tracking.interface import show

    values = plain(config)
    show(read_settings(TrackingConfig, values["tracking"], "tracking"), REPOSITORY, values["port"])


if __name__ == "__main__":
    main()
