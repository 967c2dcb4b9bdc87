"""Stage 3: a training checkpoint to a self-contained export in the published DeepSeek-V3 layout.

python -m pipeline.convert_checkpoint
"""

import logging
import shutil
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig

from lightning_modules.model.decoder import Decoder
from pipeline.checkpoints.huggingface import from_published, read_tensors, write_huggingface
from pipeline.checkpoints.training import TrainedDecoder, read_training_checkpoint
from pipeline.configuration import outputs_folder, plain
from pipeline.files import atomic_folder, write_json
from pipeline.stage_runs import child_run
from pipeline.tokens.vocabulary import Special

log = logging.getLogger(__name__)

SHARD_BYTES = 4 * 2**30
SPECIAL_TOKENS = {"bos_token_id": int(Special.BOS), "eos_token_id": int(Special.EOS), "pad_token_id": int(Special.PAD)}


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    """Write outputs/export from the best checkpoint of training, and the codec it speaks through."""
    outputs = outputs_folder(config)
    checkpoint = outputs / "train" / "checkpoint.ckpt"
    trained = read_training_checkpoint(checkpoint)
    missing, unexpected = compare_with_architecture(trained)
    if missing:
        raise ValueError(f"{checkpoint} lacks {len(missing)} weights: {', '.join(missing[:8])}; train again.")
    with atomic_folder(outputs / "export") as folder:
        renamed = write_huggingface(folder, trained.config, trained.weights, SPECIAL_TOKENS, SHARD_BYTES)
        shutil.copytree(Path(config.paths.prepared) / "codec", folder / "codec")
        verify(folder, trained)
        report = {
            "layout": "huggingface",
            "source": str(checkpoint),
            "step": trained.step,
            "parameters": sum(tensor.numel() for tensor in trained.weights.values()),
            "bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
            "renamed": renamed,
            "missing": missing,
            "unexpected": unexpected,
        }
        write_json(folder / "conversion_report.json", report)
    log.info("%s: %d weights, %d renamed, none missing.", outputs / "export", len(trained.weights), len(renamed))
    with child_run(plain(config), outputs, "convert-checkpoint") as run:
        run.log_artifact(outputs / "export" / "conversion_report.json")
        run.log_artifact(outputs / "export" / "config.json")


def compare_with_architecture(trained: TrainedDecoder) -> tuple[list[str], list[str]]:
    """Weights that the architecture needs and the checkpoint lacks, and those it holds without need."""
    with torch.device("meta"):
        needed = Decoder(trained.config).state_dict().keys()
    return sorted(needed - trained.weights.keys()), sorted(trained.weights.keys() - needed)


def verify(folder: Path, trained: TrainedDecoder) -> None:
    """Read the export back, and hold every weight against its source.

    Raises:
        ValueError: naming a weight that is not the same bit for bit.
    """
    weights = from_published(read_tensors(folder), trained.config, trained.weights)
    for name, tensor in trained.weights.items():
        if not torch.equal(weights[name], tensor):
            raise ValueError(f"{name} was not written as it was read; convert again, and check the disk.")


if __name__ == "__main__":
    main()
