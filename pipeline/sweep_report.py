"""What a sweep has shown, as one page: which settings matter, which configuration is best, and how to train it again.

The sweep is named by its folder, or by the id of its MLflow run.

  python -m pipeline.sweep_report multirun/model-lr-1a2b3c
  python -m pipeline.sweep_report 3f2a9c0d1b7e4f60a1c2d3e4f5061728 page=outputs/sweep
"""

from typing import Any

from pipeline.configuration.composed import Folders
from pipeline.entry.command import command
from pipeline.sweeping.configuration import read_sweep_report


@command(groups=("tracking",), config_name="sweep_report", names="parent")
def main(values: dict[str, Any], folders: Folders) -> None:
    """Write the page, and say where."""
    config = read_sweep_report(values)
    # Matplotlib and scikit-learn take seconds to import: mistakes are told before.
    from pipeline.sweeping.report import report_sweep

    report_sweep(config, values)


if __name__ == "__main__":
    main()
