"""Blockwise FP8 against BF16 on a Hopper GPU: linear layers and grouped experts, forward and both gradients.

    python -m benchmarks.fp8_gemm

Prints one JSON line: for every product TFLOP/s of BF16 and of FP8 alone, and for the three of a layer together also
those of FP8 with all that is quantised in a training step: the input and the output's gradient, each once. Weights are
quantised once an optimizer step, which is not counted. Medians of repeated runs on random numbers. Tokens choose
experts unevenly, about 2 to 1.
"""

import json
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.precision.kernels import blockwise

TOKENS = 4 * 4096
# (tokens, out, in)
LINEAR = {
    "square 8192": (8192, 8192, 8192),
    "bench_3b dense up": (TOKENS, 8192, 2048),
    "bench_3b attention out": (TOKENS, 2048, 2048),
    "deepseek_v3 dense up": (4096, 18432, 7168),
}
# (experts, routed rows, out, in); DeepSeek-V3: what one of 8 ranks that share 256 experts holds
GROUPED = {
    "bench_3b gate and up": (64, 8 * TOKENS, 1536, 2048),
    "bench_3b down": (64, 8 * TOKENS, 2048, 768),
    "deepseek_v3 gate and up": (32, 32768, 4096, 7168),
    "deepseek_v3 down": (32, 32768, 7168, 2048),
}


Runs = dict[str, Callable[[], Any]]


def measure(operations: float, runs: Runs) -> dict[str, float]:
    """TFLOP/s of each of `runs`, which all do as many operations."""
    from triton.testing import do_bench

    return {
        name: round(operations / do_bench(run, warmup=10, rep=60, return_mode="median") / 1e9, 1)
        for name, run in runs.items()
    }


def compare(operations: float, products: dict[str, Runs], quantise: Callable[[], Any]) -> dict[str, dict[str, float]]:
    """Each of three products, and all of them."""

    def together(kind: str) -> None:
        for runs in products.values():
            runs[kind]()

    def quantised_together() -> None:
        quantise()
        together("fp8")

    everything: Runs = {
        "bf16": lambda: together("bf16"),
        "fp8": lambda: together("fp8"),
        "fp8_with_quantisation": quantised_together,
    }
    return {name: measure(operations, runs) for name, runs in products.items()} | {
        "all": measure(3 * operations, everything)
    }


def linear(n_tokens: int, out_features: int, in_features: int) -> dict[str, dict[str, float]]:
    x, gradient = random(n_tokens, in_features), random(n_tokens, out_features)
    weight = random(out_features, in_features)
    rows, gradients, quantised = (
        blockwise.quantise(x),
        blockwise.quantise(gradient),
        blockwise.quantise_weight(weight),
    )
    products: dict[str, Runs] = {
        "forward": {
            "bf16": lambda: x @ weight.mT,
            "fp8": lambda: blockwise.multiply_rows(rows, quantised[:2]),
        },
        "grad_input": {
            "bf16": lambda: gradient @ weight,
            "fp8": lambda: blockwise.multiply_rows(gradients, quantised[2:]),
        },
        "grad_weight": {
            "bf16": lambda: gradient.mT @ x,
            "fp8": lambda: blockwise.multiply_plain_tokens(gradients, rows[2:]),
        },
    }
    operations = 2 * n_tokens * out_features * in_features
    return compare(operations, products, lambda: (blockwise.quantise(x), blockwise.quantise(gradient)))


def grouped(n_experts: int, n_rows: int, out_features: int, in_features: int) -> dict[str, dict[str, float]]:
    popularity = 1 + torch.rand(n_experts)
    counts = torch.multinomial(popularity, n_rows, replacement=True).bincount(minlength=n_experts)
    offsets = counts.cumsum(0).to("cuda", torch.int32)
    x, gradient = random(n_rows, in_features), random(n_rows, out_features)
    weight = random(n_experts, out_features, in_features)
    plan, quantised = blockwise.plan_rows(offsets, n_rows), blockwise.quantise_weight(weight)
    rows, gradients = (blockwise.quantise_routed(tensor, plan, 1) for tensor in (x, gradient))
    products: dict[str, Runs] = {
        "forward": {
            "bf16": lambda: F.grouped_mm(x, weight.mT, offs=offsets),
            "fp8": lambda: blockwise.multiply_rows(rows, quantised[:2], plan),
        },
        "grad_input": {
            "bf16": lambda: F.grouped_mm(gradient, weight, offs=offsets),
            "fp8": lambda: blockwise.multiply_rows(gradients, quantised[2:], plan),
        },
        "grad_weight": {
            "bf16": lambda: F.grouped_mm(gradient.mT, x, offs=offsets),
            "fp8": lambda: blockwise.multiply_tokens(gradients, rows[2:], plan),
        },
    }
    operations = 2 * n_rows * out_features * in_features
    return compare(
        operations,
        products,
        lambda: [blockwise.quantise_routed(tensor, plan, 1) for tensor in (x, gradient)],
    )


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def main() -> None:
    if not blockwise.available("cuda"):
        raise SystemExit("benchmarks.fp8_gemm needs a Hopper GPU (compute capability 9.0) and Triton.")
    torch.manual_seed(0)
    results = {
        "benchmark": "fp8_gemm",
        "unit": "TFLOP/s",
        "device": torch.cuda.get_device_name(),
        "linear": {name: linear(*shape) for name, shape in LINEAR.items()},
        "grouped": {name: grouped(*shape) for name, shape in GROUPED.items()},
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
