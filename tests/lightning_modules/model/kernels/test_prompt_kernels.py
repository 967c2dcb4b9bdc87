"""What prompts go through between products, against torch; under TRITON_INTERPRET=1 without a GPU."""

import os

import pytest
import torch
import torch.nn.functional as F

from lightning_modules.model.dispatch import Permutation, count_rows
from lightning_modules.model.norm import RMSNorm
from lightning_modules.model.rotary import rotate

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("the kernels run on a GPU or under TRITON_INTERPRET=1", allow_module_level=True)

from lightning_modules.model.kernels import expert_activation  # noqa: E402
from lightning_modules.model.kernels.expert_ranks import Choices  # noqa: E402
from lightning_modules.model.kernels.position import rotate_in_place, rotate_queries, share_key  # noqa: E402
from lightning_modules.model.kernels.row_norm import normalise  # noqa: E402
from lightning_modules.model.kernels.sorted_rows import add_rows, sort_by_expert, spread  # noqa: E402


@pytest.mark.parametrize(("n_tokens", "n_experts", "n_chosen"), [(1, 3, 1), (70, 6, 3), (300, 64, 8), (40, 600, 2)])
def test_choices_are_sorted_by_expert(n_tokens: int, n_experts: int, n_chosen: int) -> None:
    torch.manual_seed(0)
    # The last expert is chosen by nobody.
    indices = torch.rand(n_tokens, max(n_experts - 1, n_chosen)).topk(n_chosen).indices.to(DEVICE, torch.int32)
    weights = torch.rand(n_tokens, n_chosen, device=DEVICE)
    order, expected = sort_by_expert(Choices(indices, weights), n_experts), Permutation.sorting(indices.long())
    assert torch.equal(order.places, expected.places.int())
    assert torch.equal(order.sources, (expected.order // n_chosen).int())
    assert torch.equal(order.weights, weights.flatten()[expected.order])
    assert torch.equal(order.ends, count_rows(indices.long(), n_experts).cumsum(0).int())


def test_tokens_are_spread_and_rows_added() -> None:
    torch.manual_seed(0)
    tokens, hidden = torch.randn(2, 9, 20, device=DEVICE)
    places = torch.randperm(18, device=DEVICE).view(9, 2).int()
    rows = spread(tokens, places)
    for choice in range(2):
        assert torch.equal(rows[places[:, choice]], tokens)
    expected = hidden + 2 * tokens
    add_rows(rows, places, hidden)
    torch.testing.assert_close(hidden, expected)


def test_rows_are_normalised() -> None:
    norm = RMSNorm(20, eps=1e-6).to(DEVICE)
    torch.nn.init.normal_(norm.weight)
    rows = torch.randn(5, 24, device=DEVICE)[:, :20]
    torch.testing.assert_close(normalise(norm, rows), norm(rows))


@pytest.mark.parametrize("interleaves", [True, False])
def test_position_is_written_into_heads(interleaves: bool) -> None:
    torch.manual_seed(0)
    n_heads, nope_dim, rope_dim = 3, 8, 12
    query = torch.randn(5, n_heads, nope_dim + rope_dim, device=DEVICE)
    angles = torch.rand(5, rope_dim // 2, device=DEVICE)
    turned = rotate(query[..., nope_dim:], angles.cos()[:, None], angles.sin()[:, None], interleaves)
    expected = torch.cat((query[..., :nope_dim], turned), dim=-1)
    torch.testing.assert_close(rotate_queries(query, angles.cos(), angles.sin(), interleaves), turned)
    rotate_in_place(query, angles.cos(), angles.sin(), interleaves)
    torch.testing.assert_close(query, expected)


def test_a_key_is_shared_by_all_heads() -> None:
    key, rope_key = torch.zeros(3, 5, 20, device=DEVICE), torch.randn(5, 12, device=DEVICE)
    share_key(rope_key, key)
    assert not key[..., :8].any()
    assert torch.equal(key[..., 8:], rope_key.expand(3, -1, -1))


@pytest.mark.skipif(DEVICE == "cpu", reason="this kernel is for Hopper")
@pytest.mark.parametrize("counts", [[300, 0, 128, 1, 500], [0, 0, 0, 0, 7]])
def test_experts_activate_their_rows(counts: list[int]) -> None:
    torch.manual_seed(0)
    tokens = torch.randn(100, 192, device=DEVICE).bfloat16()
    sources = torch.randint(0, 100, (sum(counts),), device=DEVICE).int()
    gate_up = torch.randn(len(counts), 512, 192, device=DEVICE).bfloat16() / 192**0.5
    weights = torch.rand(sum(counts), device=DEVICE)
    if not expert_activation.fits(tokens, gate_up):
        pytest.skip("this kernel is for Hopper")
    ends = torch.tensor(counts, device=DEVICE).cumsum(0).int()
    got = expert_activation.activate(tokens, sources, gate_up, weights, ends)
    parts = zip(tokens[sources].double().split(counts), weights.split(counts), gate_up.double(), strict=True)
    products = [(part @ matrix.mT, factor) for part, factor, matrix in parts]
    expected = [F.silu(both[:, :256]) * both[:, 256:] * factor[:, None] for both, factor in products]
    torch.testing.assert_close(got.double(), torch.cat(expected), rtol=2**-7, atol=1e-4)
