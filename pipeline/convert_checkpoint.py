"""Stage 3: a checkpoint of any layout to any other, judged before it takes its place.

python -m pipeline.convert_checkpoint
python -m pipeline.convert_checkpoint source=old.pt target=export [layout=deepseek conversion.dtype=fp8 …]
"""

import hydra
from omegaconf import DictConfig

from pipeline.configuration.composed import outputs_folder, plain


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    """Write `target` from `source`: by default outputs/export from the best checkpoint of training."""
    # Torch and all that stands on it take seconds to import: mistakes are told before.
    from pipeline.conversion.convert import convert_checkpoint

    convert_checkpoint(plain(config), outputs_folder(config))


if __name__ == "__main__":
    main()
