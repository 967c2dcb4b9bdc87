"""What a training needs of its GPUs, planned in one process that stands for the first of all ranks.

python -m pipeline.plan model=deepseek_v3 nodes=256 gpus_per_node=8 strategy.ep=64 precision=fp8_deepseek
python -m pipeline.plan … [gpu=h100] [output=json]
"""

import json
import warnings
from pathlib import Path

import hydra
from omegaconf import DictConfig

from pipeline.configuration.composed import plain

OUTPUTS = ("table", "json")


@hydra.main(version_base=None, config_path="../conf", config_name="plan")
def main(config: DictConfig) -> None:
    """Print the table, or the same as JSON."""
    # Of torch's, about what it will do otherwise in its next version.
    warnings.filterwarnings("ignore", module="torch.*")
    values = plain(config)
    if values["output"] not in OUTPUTS:
        raise ValueError(f"output is '{values['output']}'; choose {' or '.join(OUTPUTS)}.")
    # Torch and all that stands on it take seconds to import: mistakes are told before.
    from pipeline.planning.composed import planned
    from pipeline.planning.terminal import terminal_text

    report = planned(values, Path(config.paths.prepared))
    print(json.dumps(report, indent=2) if values["output"] == "json" else terminal_text(report))


if __name__ == "__main__":
    main()
