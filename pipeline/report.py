"""Stage 5: everything to one page.

python -m pipeline.report
"""

import hydra
from omegaconf import DictConfig

from pipeline.configuration.composed import outputs_folder, plain


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    """Write outputs/report/index.html from what the other stages wrote."""
    # Torch and all that stands on it take seconds to import: mistakes are told before.
    from pipeline.reporting.report import report

    report(plain(config), outputs_folder(config))


if __name__ == "__main__":
    main()
