"""The drift of the FP8 cache is bounded, and does not grow with the steps (docs/fp8_latent_cache.md)."""

import json
import math
import sys

import pytest
import torch

from benchmarks import fp8_cache_drift
from lightning_modules.model.cache import LatentCache, dequantise_tiles, quantise_tiles
from lightning_modules.model.decoder import Decoder
from pipeline.evaluation.cache_drift import CacheDrift, measure_cache_drift

HALF_UNIT = 2**-4
# A rounded number's error, root mean square, when all mantissas are equally likely on a logarithmic scale.
TYPICAL_ERROR = 0.0265
N_STEPS = 400


def drift(decoder: Decoder, fp8: bool = True) -> CacheDrift:
    tokens = torch.randint(3, 40, (N_STEPS,), generator=torch.Generator().manual_seed(0))
    exact, rounded = (LatentCache(decoder.config, 1, N_STEPS, fp8=rounds) for rounds in (False, fp8))
    return measure_cache_drift(decoder, tokens, exact, rounded)


@pytest.mark.parametrize("rank", [12, 136])
def test_rounding_alone_stays_within_its_bound(build_decoder, rank: int) -> None:
    # Weights of this size keep attention from magnifying a score's error, so that a layer's gain is about one.
    decoder = build_decoder(kv_lora_rank=rank, first_k_dense_replace=3, initializer_range=0.1)
    measured = drift(decoder)
    assert float(measured.relative_error.max()) < 3 * HALF_UNIT
    assert 0.1 * TYPICAL_ERROR < float(measured.relative_error.mean()) < 2 * math.sqrt(3) * TYPICAL_ERROR
    # Errors that added up would grow by the half at least from the second quarter to the last, were they independent.
    _, second, _, last = measured.summary()["relative_error_by_part"]
    assert last < 1.25 * second
    assert not measured.rerouted.any()


def test_rerouting_is_rare_and_does_not_spread(build_decoder) -> None:
    measured = drift(build_decoder(initializer_range=0.1))
    assert float(measured.relative_error.median()) < 2 * math.sqrt(3) * TYPICAL_ERROR
    assert 0 < float(measured.rerouted.mean()) < 0.2
    first, last = measured.relative_error.chunk(2)
    assert float(last.median()) < 1.25 * float(first.median())
    # Events so rare come as they please: their numbers differ by three standard deviations at most.
    first, last = (int((part > 0).sum()) for part in measured.rerouted.chunk(2))
    assert last - first < 3 * math.sqrt(first + last)


def test_equal_caches_do_not_drift(build_decoder) -> None:
    summary = drift(build_decoder(), fp8=False).summary()
    assert summary["relative_error_max"] == 0
    assert summary["divergence_mean_nats"] == 0
    assert summary["agreement"] == 1
    assert summary["rerouted"] == 0


@pytest.mark.parametrize("n_tokens", [1, 50, 2000])
@pytest.mark.parametrize("sharpness", [0.1, 1.0])
def test_attention_errs_no_more_however_many_tokens_it_sees(n_tokens: int, sharpness: float) -> None:
    generator = torch.Generator().manual_seed(n_tokens)
    latent = torch.nn.functional.rms_norm(torch.randn(n_tokens, 512, generator=generator), (512,)).double()
    query = sharpness * torch.randn(8, 512, generator=generator).double()
    scale = 192**-0.5
    rounded = dequantise_tiles(*quantise_tiles(latent)).double()
    context, rounded_context = (((query @ keys.mT) * scale).softmax(dim=-1) @ keys for keys in (latent, rounded))
    error = (rounded - latent).norm(dim=-1).max()
    assert error <= 1.001 * HALF_UNIT * latent.norm(dim=-1).max()
    shift = scale * query.norm(dim=-1) * error
    bound = error + torch.expm1(2 * shift) * rounded.norm(dim=-1).max()
    assert ((rounded_context - context).norm(dim=-1) <= bound).all()
    # The bound allows for the worst; what it is typically, averaging keeps below one token's rounding error.
    assert float((rounded_context - context).norm(dim=-1).mean()) < 1.5 * float(error)


def test_the_benchmark_prints_one_line_of_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fp8_cache_drift", "--steps", "8"])
    fp8_cache_drift.main()
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert result["benchmark"] == "fp8_cache_drift"
    assert result["steps"] == 8
    assert 0 < result["relative_error_mean"] < 1
    assert result["bytes_per_token_fp8"] < result["bytes_per_token_bf16"]
