"""Attention over the latent cache against a plain one in float64; under TRITON_INTERPRET=1 without a GPU."""

import os

import pytest
import torch
from torch import Tensor

from lightning_modules.model.cache import dequantise_tiles, quantise_tiles

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("the kernels run on a GPU or under TRITON_INTERPRET=1", allow_module_level=True)

from lightning_modules.model.kernels.absorbed import short  # noqa: E402
from lightning_modules.model.kernels.latent_attention import attend_latent  # noqa: E402


def plain(query: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, scale: float) -> Tensor:
    """Contexts [B, T, H, R] in float64: `query` [B, T, H, R + P], `keys` [B, S, R + P], `values` [B, S, R]."""
    scores = scale * torch.einsum("bthd,bsd->bths", query.double(), keys.double())
    seen = lengths[:, None] + torch.arange(query.shape[1], device=query.device)
    hidden = torch.arange(keys.shape[1], device=query.device) > seen[:, :, None]
    scores = scores.masked_fill(hidden[:, :, None], float("-inf"))
    return torch.einsum("bths,bsr->bthr", scores.softmax(dim=-1), values.double())


@pytest.fixture(params=["short", "long"])
def length(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attend as to short contexts, and as to long ones."""
    if request.param == "long":
        monkeypatch.setattr(short, "MOST_TILES", 0)


@pytest.mark.usefixtures("length")
@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize(
    ("n_new", "n_heads", "rank", "rope_dim", "lengths"),
    [
        (1, 16, 512, 64, [200, 0, 63, 64, 511]),
        (2, 16, 512, 64, [63, 300]),
        (4, 16, 512, 64, [62, 126]),
        (1, 100, 512, 64, [130]),
        (2, 4, 64, 16, [5, 300, 63]),
        (4, 16, 64, 16, [62, 126, 3, 0]),
        (1, 2, 16, 8, [0]),
        (3, 3, 144, 8, [130, 61]),
        (1, 128, 64, 16, [300, 7]),
    ],
)
def test_contexts_are_those_of_plain_attention(
    n_new: int, n_heads: int, rank: int, rope_dim: int, lengths: list[int], fp8: bool
) -> None:
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    torch.manual_seed(0)
    held = torch.tensor(lengths, device=DEVICE)
    batch, capacity = len(lengths), max(lengths) + n_new + 17
    query = torch.randn(batch, n_new, n_heads, rank + rope_dim, device=DEVICE).to(dtype)
    latent = torch.randn(batch, capacity, rank, device=DEVICE).to(dtype)
    rope_key = torch.randn(batch, capacity, rope_dim, device=DEVICE).to(dtype)
    for row, length in enumerate(lengths):
        latent[row, length + n_new :] = float("nan")
    factors, exact = None, latent
    if fp8:
        latent, factors = quantise_tiles(latent)
        exact = dequantise_tiles(latent, factors)
    exact = exact.nan_to_num()
    scale = (rank + rope_dim) ** -0.5
    query_latent, query_rope = query.split((rank, rope_dim), dim=-1)
    got = attend_latent(query_latent, query_rope, latent, rope_key, held, scale, factors)
    expected = plain(query, torch.cat((exact, rope_key), dim=-1), exact, held, scale)
    tolerance = 1e-2 if DEVICE == "cuda" else 1e-5
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=tolerance * float(expected.abs().max()))
