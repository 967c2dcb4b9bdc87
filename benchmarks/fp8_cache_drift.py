"""Drift of the FP8 latent cache against FP32 over many decoding steps: one JSON line.

    python -m benchmarks.fp8_cache_drift                            the default model's dimensions, random weights
    python -m benchmarks.fp8_cache_drift --export outputs/export    a trained model

Tokens are random ones of the vocabulary or, with `--tokens outputs`, what the FP32 model itself says.
docs/fp8_latent_cache.md tells what to expect and why.
"""

import argparse
import json
import time
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.generation import generate
from lightning_modules.model.sampling_configuration import SamplingConfig
from pipeline.checkpoints.loading import load_decoder
from pipeline.compose import compose
from pipeline.configuration.settings import read_settings
from pipeline.evaluation.cache_drift import measure_cache_drift

VOCABULARY_SIZE = 1032
# Weights as large as this make attention as sharp as a trained model's; drawn at the usual 0.02 it would be uniform.
STANDARD_DEVIATION = 0.1


def random_decoder(with_experts: bool, seed: int) -> Decoder:
    names = {field.name for field in fields(DecoderConfig)}
    values = {name: value for name, value in compose()["model"].items() if name in names}
    config = read_settings(DecoderConfig, values | {"vocab_size": VOCABULARY_SIZE}, "model")
    n_dense = config.first_k_dense_replace if with_experts else config.num_hidden_layers
    torch.manual_seed(seed)
    decoder = Decoder(replace(config, initializer_range=STANDARD_DEVIATION, first_k_dense_replace=n_dense))
    decoder.initialize_weights()
    return decoder.eval()


def spoken_tokens(decoder: Decoder, n_steps: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    start = torch.ones(1, 1, dtype=torch.long)
    drawn = generate(decoder, start, n_steps - 1, SamplingConfig(), generator=generator)
    return torch.cat([start[0], *drawn])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", type=Path, help="an export's folder, for a trained model")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--dense", action="store_true", help="random weights without experts: rounding without rerouting"
    )
    parser.add_argument("--tokens", choices=("random", "outputs"), default="random")
    arguments = parser.parse_args()
    if arguments.export is not None:
        decoder = load_decoder(arguments.export).float()
    else:
        decoder = random_decoder(not arguments.dense, arguments.seed)
    config, steps = decoder.config, arguments.steps
    generator = torch.Generator().manual_seed(arguments.seed)
    if arguments.tokens == "random":
        tokens = torch.randint(8, config.vocab_size, (steps,), generator=generator)
    else:
        tokens = spoken_tokens(decoder, steps, arguments.seed)
    started = time.perf_counter()
    exact, rounded = (LatentCache(config, batch_size=1, capacity=steps, fp8=fp8) for fp8 in (False, True))
    drift = measure_cache_drift(decoder, tokens, exact, rounded)
    sizes = {
        name: LatentCache(config, 1, 1, torch.bfloat16, "meta", fp8).bytes_per_token
        for name, fp8 in (("bf16", False), ("fp8", True))
    }
    print(
        json.dumps(
            {
                "benchmark": "fp8_cache_drift",
                "model": str(arguments.export or ("random, dense" if arguments.dense else "random")),
                "layers": config.num_hidden_layers,
                "kv_lora_rank": config.kv_lora_rank,
                "tokens": arguments.tokens,
                "steps": steps,
                "seed": arguments.seed,
                **drift.summary(),
                **{f"bytes_per_token_{name}": size for name, size in sizes.items()},
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
