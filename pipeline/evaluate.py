"""Stage 4: an export to its loss on held-out speech, and the speech it makes up.

python -m pipeline.evaluate [evaluate.temperature=0.8 …]
"""

import hydra
from omegaconf import DictConfig

from pipeline.configuration.composed import outputs_folder, plain


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    """Write outputs/evaluate from outputs/export and the held-out data."""
    # Torch and all that stands on it take seconds to import: mistakes are told before.
    from pipeline.evaluation.evaluate import evaluate

    evaluate(plain(config), outputs_folder(config))


if __name__ == "__main__":
    main()
