"""A model beside the DeepSeek-V3 paper and the model card, every value counted or measured.

Prints a table, or one JSON object with output=json. Nothing is written.

  python -m pipeline.compliance
  python -m pipeline.compliance model=deepseek_v3 output=json
"""

import json
from pathlib import Path
from typing import Any

from pipeline.configuration.composed import Folders
from pipeline.entry.command import command


@command(groups=("model", "codec", "data", "trainer"), config_name="compliance")
def main(values: dict[str, Any], folders: Folders) -> None:
    """Print the table, or the same as JSON."""
    # Torch takes seconds to import: mistakes are told before.
    from pipeline.architecture.examination import examine
    from pipeline.architecture.terminal import terminal_text

    report = examine(values, Path(values["paths"]["prepared"]))
    print(json.dumps(report, indent=2) if values["output"] == "json" else terminal_text(report))


if __name__ == "__main__":
    main()
