"""What prompts go through between products, against torch; under TRITON_INTERPRET=1 without a GPU."""

import os

import pytest
import torch

from lightning_modules.model.dispatch import Permutation, count_rows
from lightning_modules.model.norm import RMSNorm
from lightning_modules.model.rotary import rotate

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("the kernels run on a GPU or under TRITON_INTERPRET=1", allow_module_level=True)

from lightning_modules.model.kernels.expert_ranks import Choices  # noqa: E402
from lightning_modules.model.kernels.position import rotate_in_place, share_key  # noqa: E402
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
    rotate_in_place(query, angles.cos(), angles.sin(), interleaves)
    torch.testing.assert_close(query, expected)
    share_key(rope_key := torch.randn(5, rope_dim, device=DEVICE), query)
    assert torch.equal(query[..., :nope_dim], expected[..., :nope_dim])
    assert torch.equal(query[..., nope_dim:], rope_key[:, None].expand(-1, n_heads, -1))
