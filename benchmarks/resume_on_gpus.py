"""Layouts over NCCL: does a training go on in another layout, from a checkpoint, as if it had never stopped?

    torchrun --nproc-per-node 2 -m benchmarks.resume_on_gpus [--kinds fp32,bf16,fp8_deepseek] [--steps 20]

Trains one small decoder in every layout of the ranks at hand (experts spread over them, parameters sharded, copies),
with a checkpoint half way, and goes on from each of these checkpoints in each of the layouts. Prints one JSON line: for
every number format the losses, how far those of the layouts lie from the first's, and how far those of resumed
trainings lie from the uninterrupted one of the layout they go on in (in nats, at worst).
"""

import argparse
import json
import os
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import numpy as np
import torch
import torch.distributed as dist

from lightning_modules.callbacks.resume import step_checkpoints
from lightning_modules.configuration import OptimizerConfig, TrainerConfig
from lightning_modules.data_module import SpeechTokens
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.model.recompute_kinds import RECOMPUTE_KINDS
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.schedule import ScheduleConfig
from lightning_modules.trainer import build_trainer

DECODER = DecoderConfig(
    vocab_size=1024, hidden_size=256, num_hidden_layers=3, num_attention_heads=4, q_lora_rank=128, kv_lora_rank=128,
    qk_nope_head_dim=64, qk_rope_head_dim=64, v_head_dim=64, intermediate_size=512, moe_intermediate_size=128,
    first_k_dense_replace=1, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, n_group=4, topk_group=2,
    scoring_func="sigmoid", norm_topk_prob=True, routed_scaling_factor=2.5, rope_theta=10000.0, rms_norm_eps=1e-6,
    max_position_embeddings=512, tie_word_embeddings=False, initializer_range=0.02, num_nextn_predict_layers=1,
)  # fmt: skip
LENGTH, BATCH = 256, 4


class Documents:
    """Documents of one length, of whose tokens most follow from the one before."""

    def __init__(self, n: int, seed: int, length: int = 200, noise: float = 0.3) -> None:
        generator = np.random.default_rng(seed)
        successors = generator.integers(1, DECODER.vocab_size, DECODER.vocab_size)
        self.documents = generator.integers(1, DECODER.vocab_size, (n, length))
        is_noise = generator.random((n, length)) < noise
        for position in range(1, length):
            follows = successors[self.documents[:, position - 1]]
            self.documents[:, position] = np.where(is_noise[:, position], self.documents[:, position], follows)
        self.lengths = np.full(n, length)

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.documents[index]


class Losses(L.Callback):
    """The loss of every step, over all ranks."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, *args: Any) -> None:
        """Add up the ranks' shares."""
        self.losses.append(float(trainer.strategy.reduce(outputs["loss"].detach().double(), reduce_op="sum")))


def layouts(n_ranks: int) -> dict[str, ParallelConfig]:
    if n_ranks == 1:
        return {"one": ParallelConfig()}
    return {
        f"fsdp{n_ranks}": ParallelConfig(dp_shard=n_ranks),
        f"ep{n_ranks}": ParallelConfig(ep=n_ranks),
        f"copies{n_ranks}": ParallelConfig(dp_replicate=n_ranks),
    }


def train(
    layout: ParallelConfig, kind: str, folder: Path, resume: Path | None, arguments: argparse.Namespace
) -> list[float]:
    """Train in `layout` to the end, from the beginning or a checkpoint; the losses of the steps."""
    torch.compiler.reset()
    steps = arguments.steps
    config = TrainerConfig(
        accelerator=arguments.accelerator, max_steps=steps, batch_size=BATCH, sequence_length=LENGTH,
        accumulate_grad_batches=1, gradient_clip_val=1.0, val_every_steps=steps, log_every_steps=1,
        checkpoint_every_steps=steps // 2, attend_across_documents=False, ema_decay=0.9,
        recompute=arguments.recompute, compile=arguments.compile,
    )  # fmt: skip
    with torch.device("meta"):
        model = LanguageModel(
            DECODER, ObjectiveConfig(1.0, 0.3, 1e-3, 1e-4), OptimizerConfig(1e-3, (0.9, 0.95), 0.1, 1e-8),
            ScheduleConfig(4, 0.5, 0.1), steps, seed=0, recompute=arguments.recompute,
            compile_blocks=arguments.compile,
        )  # fmt: skip
    data = SpeechTokens(Documents(2000, 1), Documents(8, 2), LENGTH, 2, BATCH, steps, seed=3)
    trainer = build_trainer(config, layout, kind, False, folder)  # type: ignore[arg-type]
    losses = Losses()
    trainer.callbacks.insert(0, losses)
    trainer.fit(model, data, ckpt_path=resume, weights_only=True)
    return losses.losses


def compare(kind: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train in every layout, and from every checkpoint on in every layout."""
    found = layouts(int(os.environ.get("WORLD_SIZE", "1")))
    whole = {name: train(layout, kind, folder / name, None, arguments) for name, layout in found.items()}
    half = arguments.steps // 2
    resumed = {}
    for source, target in product(found, found):
        checkpoint = next(path for path in step_checkpoints(folder / source) if f"{half:08d}" in path.name)
        losses = train(found[target], kind, folder / f"{source}_{target}", checkpoint, arguments)
        assert len(losses) == arguments.steps - half
        resumed[f"{source} to {target}"] = furthest(losses, whole[target][half:])
    first = next(iter(whole.values()))
    return {
        "losses": {name: [round(loss, 5) for loss in losses] for name, losses in whole.items()},
        "layouts_apart": {name: furthest(losses, first) for name, losses in whole.items()},
        "resumed_apart": resumed,
        "backend": dist.get_backend(),
    }


def furthest(losses: list[float], others: list[float]) -> float:
    return max(abs(loss - other) for loss, other in zip(losses, others, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default="fp32,bf16,fp8_deepseek")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--accelerator", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--recompute", choices=RECOMPUTE_KINDS, default="none")
    arguments = parser.parse_args()
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    # Ranks of one machine share this folder: it is named by what they, and no other launch, have in common.
    launch = os.getppid() if "RANK" in os.environ else os.getpid()
    root = Path(tempfile.gettempdir()) / f"resume_on_gpus-{launch}"
    results = {kind: compare(kind, root / kind, arguments) for kind in arguments.kinds.split(",")}
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps({"benchmark": "resume_on_gpus", **vars(arguments), "results": results}))


if __name__ == "__main__":
    main()
