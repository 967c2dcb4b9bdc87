"""A small training whose checkpoints lie in `earlier_training.tar.xz`, written by the code of commit b3041e0.

Check that commit out, put this file into it, and run

    python -m tests.lightning_modules.earlier_training earlier_training.tar.xz

to write them again: for every way of training one checkpoint, at step FIRST, and in `losses.json` the losses of all
steps, those that followed it included.
"""

import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import numpy as np

from lightning_modules.callbacks.resume import step_checkpoints
from lightning_modules.configuration import OptimizerConfig, TrainerConfig
from lightning_modules.data_module import SpeechTokens
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.schedule import ScheduleConfig
from lightning_modules.trainer import build_trainer, model_device
from tests.ranks import run_on_ranks

FIRST, LAST = 4, 10
DECODER = DecoderConfig(
    vocab_size=24, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=4, kv_lora_rank=4,
    qk_nope_head_dim=4, qk_rope_head_dim=2, v_head_dim=4, intermediate_size=8, moe_intermediate_size=8,
    first_k_dense_replace=1, n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, n_group=2, topk_group=1,
    scoring_func="sigmoid", norm_topk_prob=True, routed_scaling_factor=2.5, rope_theta=10000.0, rms_norm_eps=1e-6,
    max_position_embeddings=64, tie_word_embeddings=False, initializer_range=0.2, num_nextn_predict_layers=1,
)  # fmt: skip
# Name: strategy, and type of the moments.
WAYS: dict[str, tuple[ParallelConfig | None, str]] = {
    "one_device": (None, "fp32"),
    "bf16_moments": (None, "bf16"),
    "one_rank": (ParallelConfig(), "fp32"),
}


class Documents:
    """Documents that count upwards from a random start."""

    def __init__(self, n: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.documents = [(np.arange(rng.integers(5, 30)) + rng.integers(23)) % 23 + 1 for _ in range(n)]
        self.lengths = np.array([len(document) for document in self.documents])

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.documents[index]


class Losses(L.Callback):
    """The loss of every step, by its number from 1."""

    def __init__(self) -> None:
        self.by_step: dict[str, float] = {}

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, *args: Any) -> None:
        self.by_step[str(trainer.global_step)] = float(outputs["loss"])


def train(way: str, folder: Path, resume: Path | None = None) -> dict[str, float]:
    """Train to the end, from the beginning or from a checkpoint; the losses of the steps made."""
    strategy, moments = WAYS[way]
    config = TrainerConfig(
        accelerator="cpu", max_steps=LAST, batch_size=4, sequence_length=24, accumulate_grad_batches=1,
        gradient_clip_val=1.0, val_every_steps=LAST, log_every_steps=1, checkpoint_every_steps=FIRST,
        attend_across_documents=False, ema_decay=0.7,
    )  # fmt: skip
    L.seed_everything(1, verbose=False)
    with model_device(strategy):
        model = LanguageModel(
            DECODER, ObjectiveConfig(1.0, 0.3, 0.01, 1e-3), OptimizerConfig(1e-2, (0.9, 0.95), 0.1, 1e-8, moments),
            ScheduleConfig(2, 0.5, 0.1), LAST, seed=1,
        )  # fmt: skip
    data = SpeechTokens(Documents(60, 1), Documents(2, 2), config.sequence_length, 2, config.batch_size, LAST, seed=3)
    losses = Losses()
    trainer = build_trainer(config, strategy, "fp32", False, folder, [losses])  # type: ignore[arg-type]
    trainer.fit(model, data, ckpt_path=resume, weights_only=True)
    return losses.by_step


def train_on_rank(rank: int, way: str, folder: Path, resume: Path | None) -> None:
    """As `train`, in a process of its own; the losses go into a file."""
    (folder / "losses.json").write_text(json.dumps(train(way, folder, resume)))


def losses_of(way: str, folder: Path, resume: Path | None = None) -> dict[str, float]:
    """Train `way` in a process of its own where it takes one."""
    folder.mkdir(parents=True, exist_ok=True)
    if WAYS[way][0] is None:
        return train(way, folder, resume)
    run_on_ranks(train_on_rank, 1, way, folder, resume)
    return json.loads((folder / "losses.json").read_text())


def main() -> None:
    losses = {}
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(sys.argv[1], "w:xz") as archive:
        for way in WAYS:
            folder = Path(scratch) / way
            losses[way] = losses_of(way, folder)
            first = next(path for path in step_checkpoints(folder) if f"{FIRST:08d}" in path.name)
            archive.add(first, f"{way}{first.suffix}")
        listing = Path(scratch) / "losses.json"
        listing.write_text(json.dumps(losses, indent=2) + "\n")
        archive.add(listing, listing.name)


if __name__ == "__main__":
    main()
