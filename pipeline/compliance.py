"""A model beside the DeepSeek-V3 paper and the model card, every value counted or measured.

python -m pipeline.compliance [model=deepseek_v3 output=json …]
"""

import json
from pathlib import Path

import hydra
from omegaconf import DictConfig

from pipeline.configuration.composed import plain

OUTPUTS = ("table", "json")


@hydra.main(version_base=None, config_path="../conf", config_name="compliance")
def main(config: DictConfig) -> None:
    """Print the table, or the same as JSON."""
    values = plain(config)
    if values["output"] not in OUTPUTS:
        raise ValueError(f"output is '{values['output']}'; choose {' or '.join(OUTPUTS)}.")
    # Torch takes seconds to import: mistakes are told before.
    from pipeline.architecture.examination import examine
    from pipeline.architecture.terminal import terminal_text

    report = examine(values, Path(config.paths.prepared))
    print(json.dumps(report, indent=2) if values["output"] == "json" else terminal_text(report))


if __name__ == "__main__":
    main()
