"""Number formats through ExpertParallelStrategy on one GPU: the same training in each, with NCCL, side by side.

    python -m benchmarks.strategy_on_gpu [--steps 100] [--kinds bf16,fp8_deepseek,fp8_rowwise] [--device cuda]

Trains one decoder of about 0.2B parameters on the same tokens in every format, blocks compiled and activations
recomputed unless told otherwise. Tokens are drawn from a fixed Markov chain. Prints one JSON line: for every format the
losses, their mean over the last fifth and its distance from the first format's, peak memory and tokens a second.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from functools import partial
from typing import Any

import lightning as L  # noqa: N812
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_modules.batch import Batch
from lightning_modules.configuration import OptimizerConfig
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig, ObjectiveConfig
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.parallel.strategy import ExpertParallelStrategy
from lightning_modules.precision.plugins import build_precision
from lightning_modules.schedule import ScheduleConfig

COMMON: dict[str, Any] = {
    "qk_rope_head_dim": 64, "first_k_dense_replace": 1, "n_shared_experts": 1, "scoring_func": "sigmoid",
    "norm_topk_prob": True, "routed_scaling_factor": 2.5, "rope_theta": 10000.0, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False, "initializer_range": 0.02, "num_nextn_predict_layers": 1,
}  # fmt: skip
SHAPES = {
    "cuda": DecoderConfig(
        **COMMON, vocab_size=4096, hidden_size=1024, num_hidden_layers=5, num_attention_heads=8, q_lora_rank=384,
        kv_lora_rank=256, qk_nope_head_dim=128, v_head_dim=128, intermediate_size=4096, moe_intermediate_size=384,
        n_routed_experts=32, num_experts_per_tok=4, n_group=4, topk_group=2, max_position_embeddings=2048,
    ),
    "cpu": DecoderConfig(
        **COMMON, vocab_size=128, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=64,
        kv_lora_rank=64, qk_nope_head_dim=32, v_head_dim=32, intermediate_size=256, moe_intermediate_size=64,
        n_routed_experts=8, num_experts_per_tok=2, n_group=1, topk_group=1, max_position_embeddings=256,
    ),
}  # fmt: skip


class MarkovTokens(Dataset[Tensor]):
    """Rows of tokens of which most follow from the one before; the same rows for the same seed."""

    def __init__(self, n_rows: int, length: int, vocab_size: int, noise: float = 0.3, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        successors = torch.randint(vocab_size, (vocab_size,), generator=generator)
        self.rows = torch.randint(vocab_size, (n_rows, length), generator=generator)
        drawn = torch.rand(n_rows, length, generator=generator) < noise
        for position in range(1, length):
            follows = successors[self.rows[:, position - 1]]
            self.rows[:, position] = torch.where(drawn[:, position], self.rows[:, position], follows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.rows[index]


class Progress(L.Callback):
    """The loss and the time of every step."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.times: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, *args: Any) -> None:
        """Note both."""
        self.losses.append(trainer.callback_metrics["train/loss"].detach().clone())
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def collate(rows: list[Tensor], depth: int) -> Batch:
    tokens = torch.stack(rows)
    return Batch.whole_step(tokens, torch.zeros_like(tokens), depth)


def train(kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    torch.compiler.reset()  # so that what was compiled for one format does not count towards the next one's limit
    L.seed_everything(0, verbose=False)
    decoder = SHAPES[arguments.device]
    with torch.device("meta"):
        model = LanguageModel(
            decoder,
            ObjectiveConfig(1.0, 0.3, 1e-3, 1e-4),
            OptimizerConfig(arguments.learning_rate, (0.9, 0.95), 0.1, 1e-8),
            ScheduleConfig(10, 0.5, 0.1),
            arguments.steps,
            seed=0,
            attend_across_documents=True,
            recompute_activations=arguments.recompute,
            compile_blocks=arguments.compile,
        )
    length = arguments.length + 1 + decoder.num_nextn_predict_layers
    rows = MarkovTokens(arguments.steps * arguments.batch, length, decoder.vocab_size)
    progress = Progress()
    trainer = L.Trainer(
        accelerator="gpu" if arguments.device == "cuda" else "cpu",
        devices=1,
        strategy=ExpertParallelStrategy(ParallelConfig(gpus_per_node=1)),
        plugins=[build_precision(kind, sharded=True)],
        max_steps=arguments.steps,
        max_epochs=-1,
        gradient_clip_val=1.0,
        logger=False,
        callbacks=[progress],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=tempfile.mkdtemp(),
    )
    if arguments.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    stack = partial(collate, depth=decoder.num_nextn_predict_layers)
    trainer.fit(model, DataLoader(rows, arguments.batch, collate_fn=stack))
    losses = torch.stack(progress.losses).tolist()
    late = max(1, len(losses) // 5)
    half = len(progress.times) // 2
    seconds = (progress.times[-1] - progress.times[half]) / (len(progress.times) - 1 - half)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "loss": [round(loss, 4) for loss in losses[:: max(1, len(losses) // 25)]],
        "late_loss": sum(losses[-late:]) / late,
        "step_ms": 1000 * seconds,
        "tokens_per_second": arguments.batch * arguments.length / seconds,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if arguments.device == "cuda" else None,
        "backend": torch.distributed.get_backend() if torch.distributed.is_initialized() else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default="bf16,fp8_deepseek,fp8_rowwise")
    parser.add_argument("--device", choices=SHAPES, default="cuda")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--recompute", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    results: dict[str, Any] = {}
    for kind in arguments.kinds.split(","):
        try:
            results[kind] = train(kind, arguments)
        except Exception as error:
            # The formats that work are worth reporting all the same.
            traceback.print_exc()
            results[kind] = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(kind, json.dumps(results[kind]), file=sys.stderr, flush=True)
    first = next(iter(results.values())).get("late_loss")
    for result in results.values():
        if first and "late_loss" in result:
            result["late_loss_relative_to_first"] = result["late_loss"] / first - 1
    print(json.dumps({"benchmark": "strategy_on_gpu", **vars(arguments), "results": results}))


if __name__ == "__main__":
    main()
