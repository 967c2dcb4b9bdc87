"""Blockwise FP8 against BF16 on a Hopper GPU: linear layers and grouped experts, forward and both gradients.

    python -m benchmarks.fp8_gemm

Prints one JSON line: for every product TFLOP/s of BF16, of the FP8 product alone, and of FP8 with everything that is
quantised for it, each the median of repeated runs on random numbers. Tokens choose experts unevenly, about 2 to 1.
"""

import json
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.precision.emulation import Quantised
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


def measure(n_rows: int, out_features: int, in_features: int, runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """TFLOP/s of each of `runs`, which all do the same product."""
    from triton.testing import do_bench

    operations = 2 * n_rows * out_features * in_features
    return {
        name: round(operations / do_bench(run, warmup=10, rep=60, return_mode="median") / 1e9, 1)
        for name, run in runs.items()
    }


def quantised_transpose(weight: Tensor) -> Quantised:
    quantised = blockwise.quantise_128x128(weight.mT)
    return Quantised(quantised.values.mT, quantised.scales.mT)


def linear(n_tokens: int, out_features: int, in_features: int) -> dict[str, dict[str, float]]:
    x, gradient = random(n_tokens, in_features), random(n_tokens, out_features)
    weight = random(out_features, in_features)
    x_q, weight_q = blockwise.quantise_1x128(x), blockwise.quantise_128x128(weight)
    gradient_q, transpose_q = blockwise.quantise_1x128(gradient), quantised_transpose(weight)
    x_t, gradient_t = blockwise.quantise_128x1(x), blockwise.quantise_128x1(gradient)
    runs: dict[str, dict[str, Callable[[], Any]]] = {
        "forward": {
            "bf16": lambda: x @ weight.mT,
            "fp8": lambda: blockwise.linear_forward(x_q, weight_q),
            "fp8_with_quantisation": lambda: blockwise.linear_forward(
                blockwise.quantise_1x128(x), blockwise.quantise_128x128(weight)
            ),
        },
        "grad_input": {
            "bf16": lambda: gradient @ weight,
            "fp8": lambda: blockwise.linear_grad_input(gradient_q, transpose_q),
            "fp8_with_quantisation": lambda: blockwise.linear_grad_input(
                blockwise.quantise_1x128(gradient), quantised_transpose(weight)
            ),
        },
        "grad_weight": {
            "bf16": lambda: gradient.mT @ x,
            "fp8": lambda: blockwise.linear_grad_weight(gradient_t, x_t, torch.bfloat16),
            "fp8_with_quantisation": lambda: blockwise.linear_grad_weight(
                blockwise.quantise_128x1(gradient), blockwise.quantise_128x1(x), torch.bfloat16
            ),
        },
    }
    return {name: measure(n_tokens, out_features, in_features, product) for name, product in runs.items()}


def grouped(n_experts: int, n_rows: int, out_features: int, in_features: int) -> dict[str, dict[str, float]]:
    popularity = 1 + torch.rand(n_experts)
    counts = torch.multinomial(popularity, n_rows, replacement=True).bincount(minlength=n_experts)
    offsets = counts.cumsum(0).to("cuda", torch.int32)
    rows, gradient = random(n_rows, in_features), random(n_rows, out_features)
    weight = random(n_experts, out_features, in_features)
    rows_q, weight_q = blockwise.quantise_1x128(rows), blockwise.quantise_128x128(weight)
    gradient_q, transpose_q = blockwise.quantise_1x128(gradient), quantised_transpose(weight)
    rows_t = blockwise.quantise_grouped_128x1(rows, offsets)
    gradient_t = blockwise.quantise_grouped_128x1(gradient, offsets)
    runs: dict[str, dict[str, Callable[[], Any]]] = {
        "forward": {
            "bf16": lambda: F.grouped_mm(rows, weight.mT, offs=offsets),
            "fp8": lambda: blockwise.grouped_forward(rows_q, weight_q, offsets),
            "fp8_with_quantisation": lambda: blockwise.grouped_forward(
                blockwise.quantise_1x128(rows), blockwise.quantise_128x128(weight), offsets
            ),
        },
        "grad_input": {
            "bf16": lambda: F.grouped_mm(gradient, weight, offs=offsets),
            "fp8": lambda: blockwise.grouped_grad_input(gradient_q, transpose_q, offsets),
            "fp8_with_quantisation": lambda: blockwise.grouped_grad_input(
                blockwise.quantise_1x128(gradient), quantised_transpose(weight), offsets
            ),
        },
        "grad_weight": {
            "bf16": lambda: F.grouped_mm(gradient.mT, rows, offs=offsets),
            "fp8": lambda: blockwise.grouped_grad_weight(gradient_t, rows_t, offsets, torch.bfloat16),
            "fp8_with_quantisation": lambda: blockwise.grouped_grad_weight(
                blockwise.quantise_grouped_128x1(gradient, offsets),
                blockwise.quantise_grouped_128x1(rows, offsets),
                offsets,
                torch.bfloat16,
            ),
        },
    }
    return {name: measure(n_rows, out_features, in_features, product) for name, product in runs.items()}


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
