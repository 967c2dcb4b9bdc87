"""Whether one model is better than another: on the same utterances, prompts and seeds, with a verdict for each metric.

A model is named by an MLflow run, a DVC experiment, a git revision, or the folder of an export, an evaluation or
outputs; all others are held against the first. One that was not evaluated yet is, on the prompts and seeds of the
others. Prints a table, or one JSON object on the last line with output=json, and writes a page with players side by
side.

  python -m pipeline.compare HEAD outputs
  python -m pipeline.compare champion 3f2a9c0d output=json
  python -m pipeline.compare multirun/2026-11-27/09-00-00/0 multirun/2026-11-27/09-00-00/1 promote=true
"""

from typing import Any

from pipeline.comparison.configuration import read_compare
from pipeline.configuration.composed import Folders
from pipeline.entry.command import command


@command(groups=("comparison", "evaluate", "report", "tracking"), config_name="compare", names="compared")
def main(values: dict[str, Any], folders: Folders) -> None:
    """Compare, print what came out, and write the page."""
    config = read_compare(values)
    # Torch and all that stands on it take seconds to import: mistakes are told before.
    from pipeline.comparison.command import compare

    compare(values, config)


if __name__ == "__main__":
    main()
