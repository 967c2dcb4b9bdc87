"""The planner's memory beside what GPUs measure: real training steps through ExpertParallelStrategy with NCCL.

    python -m benchmarks.planner_memory [--cases 3b-bf16,…] [--steps 3]
    torchrun --nproc-per-node 4 -m benchmarks.planner_memory [--cases ep4-none,ep4-recorded,…]

Every case is planned first, and then trained for a few steps (those that are recorded need --steps 8), on one GPU or,
under torchrun, on four. Tokens go to experts in turn: the planner takes them for balanced. Prints one JSON line: for
every case the bytes that torch's allocator handed out at most, as planned and as measured on rank 0, their relative
difference, what the planned ones are for, what the allocator and CUDA hold beside them, milliseconds of the last step,
and losses and gradient norms, which the ways of one training have in common.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest import mock

import lightning as L  # noqa: N812
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_modules.batch import Batch
from lightning_modules.callbacks.parameter_average import ParameterAverage
from lightning_modules.configuration import OptimizerConfig
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.model.recompute_kinds import RECOMPUTE_KINDS
from lightning_modules.model.router import Router
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.parallel.strategy import ExpertParallelStrategy
from lightning_modules.precision.plugins import build_precision
from lightning_modules.schedule import ScheduleConfig
from pipeline.planning.memory import GIB, step_memory
from pipeline.planning.rehearsal import rehearse
from pipeline.planning.settings import GpuConfig, Layout, PlannedTraining

# conf/model/bench_3b.yaml and a tenth of it, which predicts ahead.
LARGE = DecoderConfig(
    vocab_size=8192, hidden_size=2048, num_hidden_layers=12, num_attention_heads=16, q_lora_rank=768,
    kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, intermediate_size=8192,
    moe_intermediate_size=768, first_k_dense_replace=1, n_routed_experts=64, n_shared_experts=1, num_experts_per_tok=8,
    n_group=8, topk_group=4, scoring_func="sigmoid", norm_topk_prob=True, routed_scaling_factor=2.5,
    rope_theta=10000.0, rms_norm_eps=1e-6, max_position_embeddings=4096, tie_word_embeddings=False,
    initializer_range=0.006, num_nextn_predict_layers=0,
)  # fmt: skip
SMALL = replace(
    LARGE, vocab_size=32768, hidden_size=1024, num_hidden_layers=8, first_k_dense_replace=3, n_routed_experts=32,
    moe_intermediate_size=512, intermediate_size=4096, n_group=4, topk_group=2, num_nextn_predict_layers=1,
)  # fmt: skip
OBJECTIVE = ObjectiveConfig(1.0, 0.3, 1e-3, 1e-4)
H200 = GpuConfig("H200", 139.8)


@dataclass(frozen=True)
class Case:
    """A training, and its ranks."""

    training: PlannedTraining
    strategy: ParallelConfig = ParallelConfig(gpus_per_node=1)


def _cases_of_one() -> dict[str, Case]:
    cases = {}
    for kind in ("bf16", "fp8_rowwise", "fp8_deepseek"):
        for recompute in RECOMPUTE_KINDS:
            suffix = kind if recompute == "none" else f"{kind}-{recompute}"
            large = PlannedTraining(LARGE, OBJECTIVE, kind, batch_size=2, recompute=recompute)
            cases[f"3b-{suffix}"] = large
            cases[f"small-{suffix}"] = replace(large, decoder=SMALL, batch_size=8, sequence_length=2048)
    for name in ("3b-bf16", "small-bf16"):
        cases[f"{name}-moments"] = replace(cases[name], moments="bf16")
        cases[f"{name}-across"] = replace(cases[name], attend_across_documents=True)
    small = cases["small-bf16"]
    cases["small-bf16-no-mtp"] = replace(small, decoder=replace(SMALL, num_nextn_predict_layers=0))
    cases["small-bf16-accumulated"] = replace(small, batch_size=2, accumulate_grad_batches=4)
    cases["small-bf16-averaged"] = replace(small, averages_beside=True)
    cases["small-fp32"] = replace(small, precision="fp32", batch_size=4)
    for recompute in RECOMPUTE_KINDS[2:]:
        cases[f"3b-long-{recompute}"] = replace(
            cases["3b-bf16"], recompute=recompute, batch_size=4, sequence_length=16384
        )
    for recompute in RECOMPUTE_KINDS:
        accumulated = replace(cases["3b-bf16"], recompute=recompute, batch_size=1, accumulate_grad_batches=4)
        cases[f"3b-accumulated-{recompute}"] = accumulated
        cases[f"3b-every-{recompute}"] = replace(accumulated, reduce_every_micro_batch=True)
    plain = {name: Case(replace(training, records_steps=False)) for name, training in cases.items()}
    return plain | {"3b-bf16-recorded": Case(cases["3b-bf16"])}


def _cases_of_four() -> dict[str, Case]:
    cases = {}
    layouts = {"ep4": {"ep": 4}, "fsdp4": {"dp_shard": 4}, "ep2-fsdp2": {"ep": 2, "dp_shard": 2}}
    plain = PlannedTraining(LARGE, OBJECTIVE, "bf16", batch_size=2, records_steps=False)
    for name, sizes in layouts.items():
        for recompute in RECOMPUTE_KINDS:
            training = replace(plain, recompute=recompute)
            cases[f"{name}-{recompute}"] = Case(training, ParallelConfig(gpus_per_node=4, **sizes))
        cases[f"{name}-recorded"] = Case(replace(plain, records_steps=True), ParallelConfig(gpus_per_node=4, **sizes))
        for reduces in (False, True):
            accumulated = replace(
                plain, recompute="blocks", accumulate_grad_batches=4, reduce_every_micro_batch=reduces
            )
            strategy = ParallelConfig(gpus_per_node=4, reduce_every_micro_batch=reduces, **sizes)
            cases[f"{name}-blocks-{'every' if reduces else 'once'}"] = Case(accumulated, strategy)
    return cases


N_RANKS = int(os.environ.get("WORLD_SIZE", 1))
IS_FIRST = os.environ.get("RANK", "0") == "0"
CASES = _cases_of_one() if N_RANKS == 1 else _cases_of_four()


class RandomTokens(Dataset[Tensor]):
    """Rows of random tokens, as many as are asked for."""

    def __init__(self, n_rows: int, length: int, vocab_size: int) -> None:
        self.rows = torch.randint(vocab_size, (n_rows, length), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.rows[index]


class QuicklyInitialised(LanguageModel):
    """Draws its first weights where they lie: what they are does not matter here, and drawing them takes minutes."""

    def initialize_weights(self) -> None:
        for parameter in self.decoder.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        for router in self.decoder.routers():
            router.reset_balance()


def collate(rows: list[Tensor], depth: int) -> Batch:
    tokens = torch.stack(rows)
    return Batch.whole_step(tokens, torch.zeros_like(tokens), depth).with_borders()


def in_turn(router: Router, scores: Tensor) -> Tensor:
    """Experts [R, K] for tokens of which each expert gets as many as any other."""
    places = torch.arange(scores.shape[0] * router.n_chosen, device=scores.device)
    return places.view(-1, router.n_chosen) % scores.shape[1]


class Watch(L.Callback):
    """What every step came to, and how long the last one took."""

    def __init__(self, n_accumulated: int) -> None:
        self.n_accumulated = n_accumulated
        self.losses: list[float] = []
        self.norms: list[float] = []
        self._times: list[float] = []

    @property
    def step_ms(self) -> float:
        """Of the last step."""
        first, last = self._times[-1 - self.n_accumulated], self._times[-1]
        return 1000 * (last - first)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at gradients once they are complete."""
        assert isinstance(pl_module, LanguageModel)
        pl_module.check_gradients = lambda _, norm: self.norms.append(float(norm))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        """Note a micro-batch."""
        torch.cuda.synchronize()
        self._times.append(time.perf_counter())
        self.losses.append(float(outputs["loss"]))


def plan(case: Case) -> dict[str, Any]:
    training, layout = case.training, Layout.of(case.strategy)
    memory = step_memory(training, layout, H200, rehearse(training, layout, H200))
    return {
        "planned_gib": memory.fullest.total / GIB,
        "fullest": memory.fullest.phase,
        "parts_gib": {name: round(size / GIB, 3) for name, size in memory.fullest.parts.items()},
    }


def measure(case: Case, n_steps: int) -> dict[str, Any]:
    training, watch = case.training, Watch(case.training.accumulate_grad_batches)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.manual_seed(0)
    with torch.device("meta"):
        model = QuicklyInitialised(
            training.decoder,
            training.objective,
            OptimizerConfig(1e-4, (0.9, 0.95), 0.1, 1e-8, training.moments),
            ScheduleConfig(1, 0.5, 0.1),
            n_steps,
            seed=0,
            attend_across_documents=training.attend_across_documents,
            recompute=training.recompute,
            record_steps=training.records_steps,
        )
    length = training.sequence_length + 1 + training.decoder.num_nextn_predict_layers
    n_rows = n_steps * training.batch_size * training.accumulate_grad_batches
    strategy = ExpertParallelStrategy(case.strategy)
    # Block by block, as it is planned.
    strategy.gathered_at_once = 0
    trainer = L.Trainer(
        accelerator="gpu",
        devices=N_RANKS,
        strategy=strategy,
        plugins=[build_precision(training.precision, sharded=True)],
        max_steps=n_steps,
        max_epochs=-1,
        gradient_clip_val=1.0,
        accumulate_grad_batches=training.accumulate_grad_batches,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=tempfile.mkdtemp(),
        callbacks=[watch, *([ParameterAverage(0.99)] if training.averages_beside else [])],
    )
    torch.cuda.reset_peak_memory_stats()
    rows = RandomTokens(n_rows, length, training.decoder.vocab_size)
    stack = partial(collate, depth=training.decoder.num_nextn_predict_layers)
    with mock.patch.object(Router, "_choose", in_turn):
        trainer.fit(model, DataLoader(rows, training.batch_size, collate_fn=stack))
    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    free, total = torch.cuda.mem_get_info()
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "before_gib": before / GIB,
        "measured_gib": allocated / GIB,
        "allocator_gib": (reserved - allocated) / GIB,
        "context_gib": (total - free - torch.cuda.memory_reserved()) / GIB,
        "device_gib": total / GIB,
        "step_ms": round(watch.step_ms, 1),
        "losses": [round(loss, 6) for loss in watch.losses],
        "norms": [round(norm, 6) for norm in watch.norms],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help="which of the cases, separated by commas")
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    # A fake process group stands for the ranks while planning: it has to be gone before the real one is there.
    results = {name: plan(CASES[name]) if IS_FIRST else {"planned_gib": 0.0} for name in arguments.cases.split(",")}
    for name, result in results.items():
        try:
            result |= measure(CASES[name], arguments.steps)
            result["relative_error"] = result["planned_gib"] / result["measured_gib"] - 1
        except Exception:
            result["error"] = traceback.format_exc(limit=-3)
        if IS_FIRST:
            print(name, json.dumps(result), file=sys.stderr, flush=True)
    if IS_FIRST:
        print(json.dumps({"benchmark": "planner_memory", "device": torch.cuda.get_device_name(), "cases": results}))


if __name__ == "__main__":
    main()
