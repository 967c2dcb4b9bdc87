"""Do low-precision formats train as well as BF16? The same training on real audio tokens in each, side by side.

    python -m benchmarks.loss_parity TOKENS [--kinds bf16,fp8_deepseek] [--steps 1000] [--device cuda] [--shape compact]

TOKENS is a split of token shards as prepare-data writes them (a folder with an index.json). Every format trains the
same model from the same weights on the same batches, on one device, and rounds all that its recipe knows, also where
that costs time. Prints one JSON line: for every format its smoothed loss, how far that lies from the first format's
(relative: on average over the last tenth of the steps, and at worst once the first tenth is over; arXiv 2412.19437,
section 3.3, keeps below 0.25%), tokens a second (by the median step) and peak memory.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import torch
from torch import Tensor

from lightning_modules.callbacks.expert_balance import ExpertBalance
from lightning_modules.configuration import OptimizerConfig
from lightning_modules.data_module import SpeechTokens
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.parallel.one_device import OneDeviceStrategy
from lightning_modules.precision.kinds import PRECISIONS
from lightning_modules.precision.plugins import build_precision
from lightning_modules.precision.recipes import everything
from lightning_modules.schedule import ScheduleConfig
from pipeline.tokens.dataset import TokenDataset

PAPER_BAR = 0.0025
COMMON: dict[str, Any] = {
    "first_k_dense_replace": 1, "n_shared_experts": 1, "scoring_func": "sigmoid", "norm_topk_prob": True,
    "routed_scaling_factor": 2.5, "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 4096,
    "tie_word_embeddings": False, "initializer_range": 0.02, "num_nextn_predict_layers": 1,
}  # fmt: skip
# Every side is a multiple of 16, so that kernels serve all weights.
SHAPES: dict[str, dict[str, Any]] = {
    "small": {
        "hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 4, "q_lora_rank": 256, "kv_lora_rank": 256,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "intermediate_size": 1536,
        "moe_intermediate_size": 256, "n_routed_experts": 16, "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2,
    },
    # For a CPU, which emulates FP8: a thousand steps in a quarter of an hour.
    "compact": {
        "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 2, "q_lora_rank": 128, "kv_lora_rank": 128,
        "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 96, "intermediate_size": 512,
        "moe_intermediate_size": 128, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2,
    },
    "tiny": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "q_lora_rank": 32, "kv_lora_rank": 32,
        "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 32, "intermediate_size": 128,
        "moe_intermediate_size": 32, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    },
}  # fmt: skip


class Recorder(L.Callback):
    """The loss and the duration of every step."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.seconds: list[float] = []
        self._begun = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self._begun = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, LanguageModel)
        self.losses.append(pl_module.global_means(outputs["sums"])["train/loss"].clone())
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._begun)


def train(kind: str, documents: TokenDataset, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train once in the format `kind`, and tell how it went."""
    L.seed_everything(arguments.seed, verbose=False)
    config = DecoderConfig(**COMMON, **SHAPES[arguments.shape], vocab_size=documents.vocabulary.size)
    # Lightning wants a GPU's number.
    device = torch.device(arguments.device, 0)
    with device:
        model = LanguageModel(
            config,
            ObjectiveConfig(lm_weight=1.0, mtp_weight=0.3, bias_update_speed=1e-3, sequence_balance_weight=1e-4),
            OptimizerConfig(arguments.learning_rate, (0.9, 0.95), 0.1, 1e-8, arguments.moments),
            ScheduleConfig(min(100, arguments.steps // 10), 0.5, 0.1),
            arguments.steps,
            seed=arguments.seed,
            record_steps=True,
        )
    lookahead = 1 + config.num_nextn_predict_layers
    batches = (arguments.length, lookahead, arguments.batch, arguments.steps, arguments.seed)
    recorder = Recorder()
    trainer = L.Trainer(
        accelerator="gpu" if arguments.device == "cuda" else "cpu",
        devices=1,
        strategy=OneDeviceStrategy(device),
        plugins=[build_precision(kind, sharded=False, takes=everything)],
        max_steps=arguments.steps,
        max_epochs=-1,
        limit_val_batches=0,
        gradient_clip_val=1.0,
        logger=False,
        callbacks=[ExpertBalance(), recorder],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    if arguments.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer.fit(model, datamodule=SpeechTokens(documents, documents, *batches))
    tokens = arguments.batch * arguments.length
    return {
        "losses": torch.stack(recorder.losses).tolist(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens_per_second": tokens / statistics.median(recorder.seconds[len(recorder.seconds) // 2 :]),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if arguments.device == "cuda" else None,
    }


def smooth(losses: list[float], window: int) -> list[float]:
    """The mean of the last `window` losses at every step that has so many behind it."""
    return [statistics.fmean(losses[end - window : end]) for end in range(window, len(losses) + 1)]


def compare(losses: list[float], reference: list[float], window: int) -> dict[str, float]:
    """Relative distances of one smoothed curve from another's."""
    distances = [
        ours / theirs - 1 for ours, theirs in zip(smooth(losses, window), smooth(reference, window), strict=True)
    ]
    tenth = max(1, len(distances) // 10)
    return {
        "mean_error_of_last_tenth": statistics.fmean(distances[-tenth:]),
        "worst_error_after_first_tenth": max((abs(d) for d in distances[tenth:]), default=abs(distances[-1])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("--kinds", default="bf16,fp8_rowwise,fp8_deepseek")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--moments", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--smoothing", type=int, default=50, help="steps a smoothed loss is the mean of")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    kinds = arguments.kinds.split(",")
    if unknown := set(kinds) - set(PRECISIONS):
        parser.error(f"--kinds has {', '.join(sorted(unknown))}; choose among {', '.join(PRECISIONS)}.")
    if arguments.smoothing > arguments.steps:
        parser.error("--smoothing takes at most as many steps as --steps.")
    documents = TokenDataset.open(arguments.tokens)
    results = {}
    for kind in kinds:
        results[kind] = train(kind, documents, arguments)
        # What is done is not lost when a later format's training is cut short.
        print(kind, json.dumps(results[kind]), file=sys.stderr, flush=True)
    reference = results[kinds[0]]["losses"]
    for result in results.values():
        losses = result.pop("losses")
        smoothed = smooth(losses, arguments.smoothing)
        result["smoothed_loss"] = [round(loss, 5) for loss in smoothed[:: max(1, len(smoothed) // 40)]]
        result["final_smoothed_loss"] = smoothed[-1]
        result |= compare(losses, reference, arguments.smoothing)
        result["meets_the_paper_s_bar"] = abs(result["mean_error_of_last_tenth"]) < PAPER_BAR
    settings = vars(arguments) | {"tokens": str(arguments.tokens), "training_tokens": documents.n_tokens}
    print(json.dumps({"benchmark": "loss_parity", **settings, "reference": kinds[0], "results": results}))


if __name__ == "__main__":
    main()
