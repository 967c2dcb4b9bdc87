"""The latent cache: what it costs, and what rounding to FP8 does."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.model.cache import LatentCache, dequantise_tiles, quantise_tiles

# E4M3 has three mantissa bits: a normal number is off by at most half a unit in the last of them.
HALF_UNIT = 2**-4
# The smallest subnormal step of E4M3, against its largest number: what a tile's small numbers are rounded to.
SMALLEST_STEP = 2**-9 / 448


@pytest.mark.parametrize(
    ("dtype", "fp8", "per_layer"),
    [
        (torch.bfloat16, False, 1152),
        (torch.bfloat16, True, 656),
        (torch.float32, False, 2304),
        (torch.float32, True, 512 + 16 + 256),
    ],
)
def test_a_token_costs_as_many_bytes_as_published(tiny_config, dtype: torch.dtype, fp8: bool, per_layer: int) -> None:
    config = replace(tiny_config, kv_lora_rank=512, qk_rope_head_dim=64, num_hidden_layers=61, first_k_dense_replace=3)
    cache = LatentCache(config, batch_size=3, capacity=5, dtype=dtype, device="meta", fp8=fp8)
    assert cache.bytes_per_token == 61 * per_layer
    ahead = LatentCache(config, batch_size=1, capacity=5, dtype=dtype, device="meta", fp8=fp8, n_layers=1)
    assert ahead.bytes_per_token == per_layer


@settings(deadline=None, max_examples=50)
@given(width=st.integers(1, 300), seed=st.integers(0, 1000), spread=st.floats(0.0, 10.0))
def test_a_number_is_off_by_half_a_unit_of_its_own_or_of_its_tiles_smallest_step(
    width: int, seed: int, spread: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(4, width, generator=generator) * (spread * torch.randn(4, width, generator=generator)).exp()
    stored, scales = quantise_tiles(values)
    assert stored.dtype == torch.float8_e4m3fn
    assert scales.shape == (4, -(-width // 128))
    restored = dequantise_tiles(stored, scales)
    for row in range(4):
        for tile in range(scales.shape[1]):
            numbers = values[row, 128 * tile : 128 * (tile + 1)].double()
            error = (restored[row, 128 * tile : 128 * (tile + 1)].double() - numbers).abs()
            bound = torch.maximum(numbers.abs() * HALF_UNIT, numbers.abs().max() * SMALLEST_STEP / 2)
            assert (error <= bound * (1 + 1e-5)).all()


def test_tiles_do_not_share_a_scale() -> None:
    values = torch.cat((torch.full((1, 128), 1e4), torch.full((1, 72), 1e-4)), dim=-1)
    restored = dequantise_tiles(*quantise_tiles(values))
    torch.testing.assert_close(restored, values, rtol=1e-6, atol=0)


def test_a_tile_of_zeros_stays_zero() -> None:
    assert not dequantise_tiles(*quantise_tiles(torch.zeros(2, 130))).any()


def test_each_row_keeps_its_own_length(tiny_config) -> None:
    for fp8 in (False, True):
        cache = LatentCache(tiny_config, batch_size=2, capacity=6, fp8=fp8, n_layers=1)
        latent, key = torch.ones(2, 4, 12), torch.ones(2, 4, 4)
        cache.append(0, latent, key)
        cache.advance(4)
        cache.truncate(torch.tensor([4, 1]))
        cache.truncate(3)
        latents, keys = cache.append(0, 5 * latent[:, :2], 5 * key[:, :2])
        assert latents.shape == (2, 5, 12)
        torch.testing.assert_close(latents[0, :, 0], torch.tensor([1.0, 1.0, 1.0, 5.0, 5.0]))
        torch.testing.assert_close(latents[1, :3, 0], torch.tensor([1.0, 5.0, 5.0]))
        torch.testing.assert_close(keys[1, :3, 0], torch.tensor([1.0, 5.0, 5.0]))


def test_rows_are_even_where_all_are_known_to_hold_as_many(tiny_config) -> None:
    cache = LatentCache(tiny_config, batch_size=2, capacity=6, n_layers=1)
    cache.advance(4)
    cache.truncate(3)
    assert cache.is_even
    assert cache.lengths.tolist() == [cache.longest] * 2
    cache.truncate(torch.tensor([3, 1]))
    assert not cache.is_even
    cache.hold(torch.zeros(2), 0)
    assert cache.is_even
    cache.replace_rows(torch.tensor([1]), LatentCache(tiny_config, batch_size=1, capacity=6, n_layers=1))
    assert not cache.is_even


def test_only_the_latent_is_rounded(tiny_config) -> None:
    generator = torch.Generator().manual_seed(0)
    latent, key = torch.randn(1, 3, 12, generator=generator), torch.randn(1, 3, 4, generator=generator)
    latents, keys = LatentCache(tiny_config, 1, 3, fp8=True).append(1, latent, key)
    assert torch.equal(keys, key)
    assert not torch.equal(latents, latent)
    torch.testing.assert_close(latents, latent, rtol=HALF_UNIT, atol=1e-2)
