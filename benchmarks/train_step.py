"""How fast a training step is, as users run it, and beside other code bases: docs/performance.md.

    python -m benchmarks.train_step --preset small --device cpu --peer transformers
    python -m benchmarks.train_step --preset bench_3b --precision bf16 --batch 2 --length 4096 --peer torchtitan
    torchrun --nproc-per-node 4 -m benchmarks.train_step --preset bench_3b --precision bf16 --ep 4 --batch 2

Trains a preset of conf/model on random tokens, routed as they are, through the LightningModule, strategy and callbacks
that pipeline.train builds. Prints one JSON line. Its figures are medians over the steps after the first few; they count
input tokens of all ranks, and one rank's operations: 6 a token for each active parameter that multiplies, and causal
attention within documents at half.

With --peer another code base trains the same weights on the same tokens with the same clipping, AdamW settings and
objective: the next token alone, and no balancing of experts. `ratio` is its time by ours. Unless the losses of the
first step agree to 1e-2 there is none, and the status is 2. On a CPU, which others may use meanwhile, they take turns.

With --profile a few more steps of ours are profiled, and a table tells where the milliseconds went, by part, beside the
floor of each: what the device needs at least for the part's operations and bytes (benchmarks/training/costs.py).
"""

import argparse
import gc
import json
import logging
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.clock import StepClock
from benchmarks.command_line import count, preset_parser
from benchmarks.peers.peer import Opponent, Peer
from benchmarks.rates import measure_rates
from benchmarks.training.costs import model_flops, step_costs
from benchmarks.training.ours import FIRST_STEPS, Course, train_ours
from benchmarks.training.profile import StepProfile
from benchmarks.training.workload import Workload, compose_workload
from lightning_modules.configuration import OPTIMIZERS
from lightning_modules.model.counting import build_on_meta, count_parameters
from lightning_modules.model.recompute_kinds import RECOMPUTE_KINDS
from lightning_modules.parallel.configuration import DISPATCH_KINDS
from lightning_modules.precision.kinds import PRECISIONS

log = logging.getLogger("benchmarks")

PEERS = ("transformers", "torchtitan")
WARM_UP = 4
STEPS = {"cpu": 20, "cuda": 16}
PRECISION = {"cpu": "fp32", "cuda": "bf16"}
LOSS_TOLERANCE = 1e-2
LEARNING_RATE = 1e-4


class RefusedError(Exception):
    """What was asked for cannot be timed, or a peer does not train what we do."""


def main(command_line: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(command_line)
    logging.basicConfig(format="%(relativeCreated)7.0f ms  %(message)s")
    log.setLevel(logging.INFO if _rank()[0] == 0 else logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        result = measure(arguments)
    except RefusedError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if _rank()[0] == 0:
        print(json.dumps(result))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time our training and, where one is named, the peer's.

    Raises:
        RefusedError: a setting cannot be, or the two do not compute the same.
    """
    _check(arguments)
    device = _device(arguments.device)
    n_steps = WARM_UP + (arguments.steps or STEPS[arguments.device])
    profile = None if arguments.profile is None else StepProfile(device)
    course = Course(StepClock(device), n_steps, profile=profile)
    workload = _compose(arguments, course.max_steps)
    opponent = None
    if arguments.peer is not None:
        # Two models and their optimizers find no room on one GPU, which nobody disturbs: there it comes afterwards.
        turn = 1 if device.type == "cpu" else course.max_steps
        opponent = Opponent(_find_peer(arguments.peer), workload, StepClock(device), turn, *_rank())
    course.opponent = opponent
    with tempfile.TemporaryDirectory() as folder:
        train_ours(workload, course, Path(folder))
    result = _describe(arguments, workload) | _summarise(workload, course.clock)
    result["recompilations"] = course.recompilations
    result["losses"] = _rounded(course.losses)
    # Lightning gives callbacks the model's own `log`: while one of them lives, so does the model.
    del course
    _free(device)
    if profile is not None and _rank()[0] == 0:
        _write_profile(arguments.profile, profile, workload, result)
    if opponent is None:
        return result
    log.info("Ours: %s", json.dumps(result))
    opponent.catch_up(n_steps)
    return result | _compare(result, opponent, workload)


def _compose(arguments: argparse.Namespace, max_steps: int) -> Workload:
    try:
        return compose_workload(overrides(arguments, max_steps), arguments.documents)
    except ValueError as error:
        raise RefusedError(str(error)) from None


def overrides(arguments: argparse.Namespace, max_steps: int) -> list[str]:
    """The experiment to compose, as pipeline.train would be told it."""
    depth = 0 if arguments.peer is not None and arguments.mtp is None else arguments.mtp
    chosen = {
        "model": arguments.preset,
        "trainer": "gpu" if arguments.device == "cuda" else "default",
        "precision": arguments.precision or PRECISION[arguments.device],
        "schedule": "warmup_constant",
        "schedule.warmup_steps": 0,
        "optimizer": arguments.optimizer,
        "optimizer.lr": LEARNING_RATE,
        "optimizer.moments": arguments.moments,
        "model.num_nextn_predict_layers": depth,
        "trainer.max_steps": max_steps,
        "trainer.batch_size": arguments.batch,
        "trainer.sequence_length": arguments.length,
        "trainer.attend_across_documents": arguments.documents is None,
        "trainer.recompute": arguments.recompute,
        "trainer.compile": arguments.device == "cuda" if arguments.compile is None else arguments.compile,
        "trainer.cuda_graph": arguments.graph,
        "trainer.checkpoint_every_steps": 10**6,
    }
    if arguments.peer is not None:
        chosen |= {"model.objective.sequence_balance_weight": 0.0, "model.objective.bias_update_speed": 0.0}
    if "WORLD_SIZE" in os.environ:
        chosen |= {
            "strategy": "expert_parallel",
            "strategy.ep": arguments.ep,
            "strategy.cp": arguments.cp,
            "strategy.dispatch": arguments.dispatch,
        }
    return [f"{key}={value}" for key, value in chosen.items() if value is not None]


def _summarise(workload: Workload, clock: StepClock) -> dict[str, Any]:
    """The figures that both sides have."""
    times = clock.milliseconds()[WARM_UP:]
    seconds = statistics.median(times) / 1000
    on_gpu = clock.device.type == "cuda"
    flops = model_flops(step_costs(workload, on_gpu))
    return {
        "tokens_per_second": round(_rank()[1] * workload.n_tokens / seconds, 1),
        "model_tflops": round(flops / seconds / 1e12, 4),
        "step_ms": round(1000 * seconds, 3),
        "mean_step_ms": round(statistics.fmean(times), 3),
        "cpu_ms_per_step": round(clock.cpu_milliseconds(WARM_UP), 3),
        "first_step_seconds": round(clock.first_step_seconds, 2),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if on_gpu else None,
    }


def _compare(ours: dict[str, Any], opponent: Opponent, workload: Workload) -> dict[str, Any]:
    """The peer's figures, and its time by ours.

    Raises:
        RefusedError: the first losses differ.
    """
    name = opponent.kind.NAME
    theirs = _summarise(workload, opponent.clock)
    theirs["losses"] = _rounded(opponent.first_losses(FIRST_STEPS))
    difference = abs(ours["losses"][0] - theirs["losses"][0])
    if not difference <= LOSS_TOLERANCE:
        raise RefusedError(
            f"The first step's loss is {ours['losses'][0]} here and {theirs['losses'][0]} with {name}, more than "
            f"{LOSS_TOLERANCE} apart: the two do not train the same, and their times have no ratio."
        )
    return {"peer": name, "ratio": round(theirs["step_ms"] / ours["step_ms"], 3), name: theirs}


def _describe(arguments: argparse.Namespace, workload: Workload) -> dict[str, Any]:
    """What was timed, and on what."""
    counts = count_parameters(build_on_meta(workload.decoder))
    return {
        "benchmark": "train_step",
        "preset": arguments.preset,
        "card": torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "ranks": _rank()[1],
        "ep": arguments.ep,
        "cp": arguments.cp,
        "precision": workload.precision,
        "optimizer": workload.optimizer.kind,
        "moments": workload.optimizer.moments,
        "compile": workload.trainer.compile,
        "graph": workload.trainer.cuda_graph and arguments.device == "cuda",
        "recompute": workload.trainer.recompute,
        "batch": workload.trainer.batch_size,
        "length": workload.trainer.sequence_length,
        "documents": workload.document_length,
        "mtp": workload.decoder.num_nextn_predict_layers,
        "routing": "real",
        "parameters": counts.total + counts.mtp,
        "active_parameters": counts.active_without_embedding,
    }


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what would be timed otherwise than it was asked for."""
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise RefusedError("torch sees no GPU; add --device cpu.")
    if arguments.peer is not None and arguments.mtp:
        raise RefusedError(f"{arguments.peer} trains no multi-token prediction; leave out --mtp or --peer.")
    if arguments.peer is not None and arguments.optimizer != "adamw":
        raise RefusedError("Peers train by AdamW; leave out --optimizer or --peer.")
    if arguments.cp > 1 and "WORLD_SIZE" not in os.environ:
        raise RefusedError(f"--cp {arguments.cp} spreads rows over ranks; start them with torchrun.")
    if arguments.cp > 1 and arguments.peer is not None:
        raise RefusedError("A peer's ranks read rows of their own; leave out --cp or --peer.")
    if arguments.ep > 1 and "WORLD_SIZE" not in os.environ:
        raise RefusedError(f"--ep {arguments.ep} spreads experts over ranks; start them with torchrun.")
    if arguments.peer == "transformers" and _rank()[1] > 1:
        raise RefusedError("transformers is timed on one device alone; on several, compare with --peer torchtitan.")


def _find_peer(name: str) -> type[Peer]:
    """A peer's class; its packages are imported only where it is asked for."""
    if name == "transformers":
        from benchmarks.peers.transformers import TransformersPeer

        return TransformersPeer
    from benchmarks.peers.absent_packages import stand_in

    stand_in()
    from benchmarks.peers.torchtitan import TorchtitanPeer

    return TorchtitanPeer


def _write_profile(path: str, profile: StepProfile, workload: Workload, result: dict[str, Any]) -> None:
    """The table, to a file or, for "-", to stderr."""
    costs = step_costs(workload, profile.on_gpu, _rank()[1])
    rates = measure_rates(_device("cuda" if profile.on_gpu else "cpu"), workload.precision)
    table = profile.table(costs, rates, result["step_ms"], result["cpu_ms_per_step"])
    if path == "-":
        sys.stderr.write("\n" + table)
    else:
        Path(path).write_text(table)


def _rounded(losses: Sequence[Tensor]) -> list[float]:
    return [round(float(loss), 4) for loss in losses]


def _rank() -> tuple[int, int]:
    """This process among those that torchrun has started, and their number."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def _device(kind: str) -> torch.device:
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if kind == "cuda" else torch.device("cpu")


def _free(device: torch.device) -> None:
    """Let go of what our training held."""
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        log.info("%.2f GiB are still held.", torch.cuda.memory_allocated() / 2**30)


def _parser() -> argparse.ArgumentParser:
    parser = preset_parser("benchmarks.train_step", __doc__)
    add = parser.add_argument
    add("--precision", choices=PRECISIONS, help="default: bf16 on a GPU, fp32 on a CPU")
    add("--batch", type=count, help="rows of a rank's step")
    add("--length", type=count, help="tokens of a row")
    add("--documents", type=count, help="tokens of every document packed into a row; none: a row is one document")
    add("--mtp", type=int, help="depth of multi-token prediction; default: the preset's, and 0 beside a peer")
    add("--optimizer", choices=OPTIMIZERS, default="adamw")
    add("--moments", choices=("fp32", "bf16"), help="of AdamW")
    add("--compile", action=argparse.BooleanOptionalAction, help="default: on a GPU")
    add("--graph", action=argparse.BooleanOptionalAction, help="launch as CUDA graphs; default: where the trainer does")
    add("--recompute", choices=RECOMPUTE_KINDS, default="none", help="what is dropped and computed again")
    add("--ep", type=count, default=1, help="ranks that share experts, under torchrun")
    add("--cp", type=count, default=1, help="ranks that share rows, under torchrun; --batch and --length are theirs")
    add("--dispatch", choices=DISPATCH_KINDS, default="auto", help="of tokens to experts of other ranks")
    add("--steps", type=count, help="timed steps, after the first few")
    add("--peer", choices=PEERS, help="a code base to compare with")
    add("--profile", nargs="?", const="-", metavar="PATH", help="write the table by part there; default: to stderr")
    return parser


if __name__ == "__main__":
    main()
