"""New tokens in the cache against `LatentCache.append`; under TRITON_INTERPRET=1 without a GPU."""

import os
from dataclasses import replace

import pytest
import torch

from lightning_modules.model.attention import LATENT_NORM_EPS
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.norm import RMSNorm
from lightning_modules.model.rotary import rotary_cos_sin, rotate
from tests.conftest import TINY

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("the kernels run on a GPU or under TRITON_INTERPRET=1", allow_module_level=True)

from lightning_modules.model.kernels.latent_append import Remembered, append_latent  # noqa: E402


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("interleaves", [True, False])
@pytest.mark.parametrize(("rank", "rope_dim", "n_new"), [(12, 4, 1), (512, 64, 2), (144, 8, 3)])
def test_the_cache_holds_what_append_stores(rank: int, rope_dim: int, n_new: int, interleaves: bool, fp8: bool) -> None:
    config = replace(TINY, kv_lora_rank=rank, qk_rope_head_dim=rope_dim, num_hidden_layers=1)
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    torch.manual_seed(0)
    expected, got = (LatentCache(config, 3, 20, dtype, DEVICE, fp8=fp8) for _ in range(2))
    for cache in (expected, got):
        cache.advance(15)
        cache.lengths -= torch.tensor([0, 5, 15], device=DEVICE)
    projected = torch.randn(3, n_new, rank + rope_dim + 5, device=DEVICE).to(dtype)[..., : rank + rope_dim]
    norm = RMSNorm(rank, eps=LATENT_NORM_EPS).to(DEVICE, dtype)
    torch.nn.init.normal_(norm.weight)
    cos, sin = rotary_cos_sin(expected.positions(n_new), config)
    latent, rope_key = projected.split((rank, rope_dim), dim=-1)
    expected.append(0, norm(latent), rotate(rope_key, cos, sin, interleaves))
    scale = None if got.latent_scale is None else got.latent_scale[0]
    cache = got.latent[0], got.rope_key[0], got.lengths
    append_latent(Remembered(projected, norm.weight, cos, sin, *cache, LATENT_NORM_EPS, interleaves, scale))
    torch.testing.assert_close(got.rope_key, expected.rope_key)
    if got.latent_scale is not None and expected.latent_scale is not None:
        torch.testing.assert_close(got.latent_scale, expected.latent_scale, rtol=2**-7, atol=0)
        if DEVICE == "cpu":
            return  # Triton's interpreter rounds wrongly to FP8.
        # Rounding may fall the other way where a number lies between two of FP8's.
        assert (got.latent.float() != expected.latent.float()).float().mean() < 0.01
    tolerance = 2**-3 if fp8 else 2**-7
    torch.testing.assert_close(got.latent.float(), expected.latent.float(), rtol=tolerance, atol=1e-5)


def test_tokens_beyond_the_capacity_are_lost() -> None:
    config = replace(TINY, num_hidden_layers=1)
    cache = LatentCache(config, 2, 4, device=DEVICE)
    cache.lengths[:] = torch.tensor([3, 4], device=DEVICE)
    rank, rope_dim = config.kv_lora_rank, config.qk_rope_head_dim
    projected = torch.ones(2, 2, rank + rope_dim, device=DEVICE)
    cos, sin = rotary_cos_sin(cache.positions(2), config)
    weight = torch.ones(rank, device=DEVICE)
    held = cache.latent[0], cache.rope_key[0], cache.lengths
    append_latent(Remembered(projected, weight, cos, sin, *held, LATENT_NORM_EPS))
    assert cache.latent[0].any(dim=-1).sum(dim=-1).tolist() == [1, 0]
