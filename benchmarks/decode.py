"""How fast tokens are generated, and beside other code bases: docs/decoding.md.

    python -m benchmarks.decode --preset small --device cpu --batch 1 --context 2048 --peer transformers
    python -m benchmarks.decode --preset bench_3b --batch 64 --context 2048 --peer transformers
    python -m benchmarks.decode --preset bench_3b --batch 64 --context 16384 --fp8-cache
    python -m benchmarks.decode --preset bench_3b --batch 1 --context 16384 --prefill --peer transformers
    python -m benchmarks.decode --preset bench_3b --batch 1 --context 2048 --weights fp8

Continues rows of random tokens, through the engine, with a preset of conf/model whose weights are random too: greedily
for eight steps, and then by tokens drawn at temperature 1, for greedy rows of a random model soon say the same few, and
read few experts. Prints one JSON line. Its figures are medians over the steps after the first sixteen, which compile.
With --prefill a step is a prefill of whole prompts instead, and tokens are those of the prompts.

With --peer another code base takes the same weights, is fed the tokens that our rows say, and scores each next one.
`ratio` is our tokens a second by its. Over the greedy steps our tokens have to be its own choice, as far as rounding
goes: the score that it gives its best token exceeds the score that it gives ours by `regret` on average, in standard
deviations of its scores, where another computation would make 3 or 4. Above 1e-4 in FP32, or 0.1 where weights or cache
are rounded, there is no ratio, and the status is 2. On a CPU, which others may use meanwhile, the two take turns.

With --weights fp8 the same steps are timed twice: with weights in BF16, and then in FP8, as an export in FP8 has them;
`ratio` is the latter's tokens a second by the former's.

With --speculative a step is a round: modules draft, and the decoder keeps what it agrees with. Random modules guess
nothing right: what is timed is a round's cost, which a trained model's accepted tokens divide.
"""

import argparse
import gc
import json
import logging
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.clock import StepClock
from benchmarks.command_line import count, preset_parser
from benchmarks.decoding.comparison import Agreement, Theirs, take_steps
from benchmarks.decoding.kernels import N_PROFILED, KernelTimes
from benchmarks.decoding.ours import N_GREEDY, OurDecoding, OurPrefill
from benchmarks.decoding.reading import Reading, step_reading
from benchmarks.decoding.weights import keep_weights_in_fp8
from benchmarks.decoding.workload import DTYPES, DecodingWorkload, compose_decoding
from benchmarks.rates import copy_bandwidth
from lightning_modules.model.block_scaled import fits_blocks
from lightning_modules.model.counting import build_on_meta, count_parameters
from lightning_modules.model.decoder import Decoder

log = logging.getLogger("benchmarks")

PEERS = ("transformers",)
PRECISION = {"cpu": "fp32", "cuda": "bf16"}
# First steps, which are not timed; and those that are timed after them.
WARM_UP, PREFILL_WARM_UP = 2 * N_GREEDY, 1
STEPS, PREFILLS = {"cpu": 64, "cuda": 128}, 4
# On a CPU, steps of ours after which a peer takes as many.
TURN = 8
PERCENTILES = (10, 50, 90, 99)
REGRET, ROUNDED_REGRET = 1e-4, 0.1


class RefusedError(Exception):
    """What was asked for cannot be timed, or a peer does not compute what we do."""


def main(command_line: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(command_line)
    logging.basicConfig(format="%(relativeCreated)7.0f ms  %(message)s")
    log.setLevel(logging.INFO)
    try:
        result = measure(arguments)
    except RefusedError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(json.dumps(result))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time our decoding and, where one is named, the peer's.

    Raises:
        RefusedError: a setting cannot be, or the two do not compute the same.
    """
    _check(arguments)
    device = torch.device(arguments.device)
    warm_up = PREFILL_WARM_UP if arguments.prefill else WARM_UP
    n_steps = warm_up + (arguments.steps or (PREFILLS if arguments.prefill else STEPS[arguments.device]))
    workload = _compose(arguments, n_steps + (N_PROFILED if arguments.profile else 0))
    decoder = workload.build(device)
    log.info("The decoder has its weights.")
    rounded: dict[str, Any] = {}
    if arguments.weights == "fp8":
        rounded = _time_before_rounding(arguments, decoder, workload, warm_up, n_steps)
    clock = StepClock(device)
    ours = (OurPrefill if arguments.prefill else OurDecoding)(decoder, workload, clock, arguments.profile)
    meet = None if arguments.peer is None else _opponent(arguments, decoder, workload, device)
    # Two caches find no room on one GPU, which nobody disturbs: there the peer comes afterwards.
    turn = TURN if device.type == "cpu" else n_steps
    outcome = take_steps(ours, meet, n_steps, turn, N_GREEDY)
    result = _describe(arguments, workload) | ours.facts() | _summarise(clock, warm_up, ours.tokens_per_step())
    if ours.kernels is not None:
        sys.stderr.write("\n" + ours.kernels.table())
        result |= {"kernel_ms": round(ours.kernels.milliseconds.total(), 4)}
    if not arguments.prefill and not workload.n_drafts:
        reading = step_reading(decoder, workload, ours.tokens()[:, warm_up:])
        result |= _reading(reading, result["step_ms"], copy_bandwidth(device), ours.kernels)
    if rounded:
        result |= {"peer": "weights in BF16", "ratio": _ratio(result, rounded), "bf16_weights": rounded}
    if outcome is None:
        return result
    theirs, agreement = outcome
    n_tokens = workload.batch * (workload.context if arguments.prefill else 1)
    return result | _compare(arguments, result, _summarise(theirs.clock, warm_up, n_tokens), agreement)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what would be timed otherwise than it was asked for."""
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise RefusedError("torch sees no GPU; add --device cpu.")
    if arguments.profile and arguments.device == "cpu":
        raise RefusedError("Kernels are those of a GPU; leave out --profile.")
    if arguments.speculative and arguments.prefill:
        raise RefusedError("Prompts are not speculated about; leave out --speculative or --prefill.")
    if arguments.weights and arguments.peer:
        raise RefusedError("Weights in FP8 are held against the same in BF16; leave out --peer or --weights.")


def _compose(arguments: argparse.Namespace, n_steps: int) -> DecodingWorkload:
    precision = arguments.precision or PRECISION[arguments.device]
    overrides = [f"model={arguments.preset}", f"model.num_nextn_predict_layers={arguments.speculative}"]
    try:
        workload = compose_decoding(
            overrides, precision, arguments.batch, arguments.context, n_steps, arguments.fp8_cache
        )
    except ValueError as error:
        raise RefusedError(str(error)) from None
    if arguments.weights and precision != "bf16":
        raise RefusedError("Weights in FP8 stand for numbers in BF16; add --precision bf16.")
    if arguments.weights and not fits_blocks(workload.decoder):
        raise RefusedError(
            f"Experts and heads of {arguments.preset} do not end where blocks of 128 numbers do: it keeps no weights "
            f"in FP8. Leave out --weights, or take another --preset."
        )
    return workload


def _time_before_rounding(
    arguments: argparse.Namespace, decoder: Decoder, workload: DecodingWorkload, warm_up: int, n_steps: int
) -> dict[str, Any]:
    """The figures of the same steps with weights in BF16, which are kept in FP8 afterwards."""
    clock = StepClock(torch.device(arguments.device))
    before = (OurPrefill if arguments.prefill else OurDecoding)(decoder, workload, clock)
    take_steps(before, None, n_steps, n_steps, N_GREEDY)
    figures = _summarise(clock, warm_up, before.tokens_per_step())
    del before
    keep_weights_in_fp8(decoder)
    _free(clock.device)
    log.info("The decoder keeps its weights in FP8.")
    return figures


def _opponent(
    arguments: argparse.Namespace, decoder: Decoder, workload: DecodingWorkload, device: torch.device
) -> Callable[[], Theirs]:
    """Makes the peer; its packages are imported only where it is asked for."""
    from benchmarks.peers.transformers_decoding import TransformersDecoding, TransformersPrefill

    def meet() -> Theirs:
        _free(device)
        kind = TransformersPrefill if arguments.prefill else TransformersDecoding
        return kind(decoder, workload, StepClock(device))

    return meet


def _summarise(clock: StepClock, warm_up: int, n_tokens: float) -> dict[str, Any]:
    """The figures that both sides have, of steps of so many tokens."""
    times = sorted(clock.milliseconds()[warm_up:])
    median = statistics.median(times)
    return {
        "tokens_per_second": round(1000 * n_tokens / median, 1),
        "step_ms": round(median, 4),
        "step_ms_percentiles": {f"p{p}": round(times[p * (len(times) - 1) // 100], 4) for p in PERCENTILES},
        "cpu_ms_per_step": round(clock.cpu_milliseconds(warm_up), 3),
        "first_step_seconds": round(clock.first_step_seconds, 2),
    }


def _reading(reading: Reading, step_ms: float, bandwidth: float, kernels: KernelTimes | None) -> dict[str, Any]:
    """What a step has to read, and what share of its time that takes at the speed of a large copy."""
    attention = {}
    if kernels is not None:
        share = 1000 * reading.cache / bandwidth / kernels.attention_ms if kernels.attention_ms else None
        attention = {
            "attention_ms": round(kernels.attention_ms, 4),
            "attention_share_of_bandwidth": None if share is None else round(share, 3),
        }
    return attention | {
        "share_of_experts": round(reading.share_of_experts, 4),
        "gb_of_weights": round(reading.weights / 1e9, 4),
        "gb_of_cache": round(reading.cache / 1e9, 4),
        "copy_gb_per_second": round(bandwidth / 1e9, 1),
        "share_of_bandwidth": round(1000 * reading.total / bandwidth / step_ms, 3),
    }


def _compare(
    arguments: argparse.Namespace, ours: dict[str, Any], theirs: dict[str, Any], agreement: Agreement
) -> dict[str, Any]:
    """The peer's figures, and its time by ours.

    Raises:
        RefusedError: our tokens are not its choice.
    """
    is_exact = ours["precision"] == "fp32" and not arguments.fp8_cache
    tolerance = REGRET if is_exact else ROUNDED_REGRET
    if not agreement.mean_regret <= tolerance:
        raise RefusedError(
            f"{arguments.peer} regrets our tokens by {agreement.mean_regret:.3g} standard deviations of its scores, "
            f"more than {tolerance}: the two do not compute the same, and their times have no ratio."
        )
    return {
        "peer": arguments.peer,
        "ratio": _ratio(ours, theirs),
        arguments.peer: theirs,
        "agreement": {name: round(value, 6) for name, value in asdict(agreement).items()},
    }


def _ratio(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    return round(ours["tokens_per_second"] / theirs["tokens_per_second"], 3)


def _describe(arguments: argparse.Namespace, workload: DecodingWorkload) -> dict[str, Any]:
    """What was timed, and on what."""
    counts = count_parameters(build_on_meta(workload.decoder))
    return {
        "benchmark": "prefill" if arguments.prefill else "decode",
        "preset": arguments.preset,
        "card": torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "precision": workload.precision,
        "weights": arguments.weights or workload.precision,
        "fp8_cache": workload.fp8_cache,
        "speculative": workload.n_drafts,
        "batch": workload.batch,
        "context": workload.context,
        "parameters": counts.total,
        "active_parameters": counts.active_without_embedding,
    }


def _free(device: torch.device) -> None:
    """Let go of what our steps held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        log.info("%.2f GiB are still held.", torch.cuda.memory_allocated() / 2**30)


def _parser() -> argparse.ArgumentParser:
    parser = preset_parser("benchmarks.decode", __doc__)
    add = parser.add_argument
    add("--precision", choices=DTYPES, help="default: bf16 on a GPU, fp32 on a CPU")
    add("--batch", type=count, default=1, help="rows")
    add("--context", type=count, default=2048, help="tokens of a row before the first step")
    add("--weights", choices=("fp8",), help="keep our weights in FP8, and compare with BF16")
    add("--fp8-cache", action="store_true", help="keep our latents in FP8")
    add("--speculative", nargs="?", type=count, const=1, default=0, metavar="DEPTH", help="draft so many tokens a step")
    add("--prefill", action="store_true", help="time prompts instead of what follows them")
    add("--profile", action="store_true", help="write a table of a GPU's kernels to stderr")
    add("--steps", type=count, help="timed steps, after the first few")
    add("--peer", choices=PEERS, help="a code base to compare with")
    return parser


if __name__ == "__main__":
    main()
