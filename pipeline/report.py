"""Stage 5: everything to one page, outputs/report/index.html, which opens in any browser.

Reads what the other stages wrote.

  python -m pipeline.report
  python -m pipeline.report report.title="Six voices" report.n_examples=8
"""

from typing import Any

from pipeline.configuration.composed import Folders
from pipeline.entry.command import command


@command(groups=("report", "tracking"), writes=("outputs",))
def main(values: dict[str, Any], folders: Folders) -> None:
    """Write outputs/report/index.html from what the other stages wrote."""
    # Torch and all that stands on it take seconds to import: mistakes are told before.
    from pipeline.reporting.report import report

    report(values, folders)


if __name__ == "__main__":
    main()
