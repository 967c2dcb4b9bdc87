"""Stage 2: token shards to a trained decoder, on one device or many.

python -m pipeline.train [model=tiny optimizer.lr=1e-3 …]
torchrun --nproc-per-node 8 -m pipeline.train strategy=expert_parallel strategy.ep=8 …
python -m pipeline.train -m model=tiny,small optimizer.lr=1e-3,3e-4
"""

import hydra
from omegaconf import DictConfig

from pipeline.configuration.composed import outputs_folder, plain


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> float:
    """Train, and return the best validation loss, which sweeps minimise."""
    # Torch and all that stands on it take seconds to import: mistakes are told before.
    from pipeline.training.train import train

    return train(plain(config), outputs_folder(config))


if __name__ == "__main__":
    main()
