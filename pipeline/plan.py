"""What a training needs of its GPUs, planned in one process that stands for the first of all ranks.

Prints a table, or one JSON object with output=json. Nothing is written, and no GPU is needed.

  python -m pipeline.plan model=bench_3b gpus_per_node=2
  python -m pipeline.plan model=deepseek_v3 nodes=256 gpus_per_node=8 strategy.ep=64 precision=fp8_deepseek gpu=h100
  python -m pipeline.plan model=deepseek_v3 nodes=256 gpus_per_node=8 plan=best trainer.global_batch=15360 …
"""

import json
import warnings
from pathlib import Path
from typing import Any

from pipeline.configuration.composed import Folders
from pipeline.entry.command import command


@command(groups=("model", "gpu", "strategy", "precision", "trainer", "optimizer", "experiment"), config_name="plan")
def main(values: dict[str, Any], folders: Folders) -> None:
    """Print the table, or the same as JSON."""
    # Of torch's, about what it will do otherwise in its next version.
    warnings.filterwarnings("ignore", module="torch.*")
    # Torch and all that stands on it take seconds to import: mistakes are told before.
    from pipeline.planning.composed import planned
    from pipeline.planning.terminal import terminal_text

    report = planned(values, Path(values["paths"]["prepared"]))
    print(json.dumps(report, indent=2) if values["output"] == "json" else terminal_text(report))


if __name__ == "__main__":
    main()
