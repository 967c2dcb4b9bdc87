"""MLflow's page of the training runs, on this machine only, until it is interrupted.

Listens on the next free port where the one asked for is taken, and says which.

  python -m pipeline.ui
  python -m pipeline.ui port=5001 tracking.experiment=another
"""

from typing import Any

from pipeline.configuration.composed import REPOSITORY, Folders
from pipeline.configuration.settings import read_settings
from pipeline.entry.command import command
from pipeline.tracking.config import TrackingConfig


@command(groups=("tracking",), config_name="ui")
def main(values: dict[str, Any], folders: Folders) -> None:
    """Serve the pages until interrupted."""
    # MLflow takes seconds to import: mistakes are told before.
    from pipeline.tracking.interface import show

    show(read_settings(TrackingConfig, values["tracking"], "tracking"), REPOSITORY, values["port"])


if __name__ == "__main__":
    main()
