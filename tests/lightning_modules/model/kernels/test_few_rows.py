"""Products of few rows against torch in double precision; under TRITON_INTERPRET=1 without a GPU."""

import os

import pytest
import torch

from lightning_modules.model.rotary import rotate

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("the kernels run on a GPU or under TRITON_INTERPRET=1", allow_module_level=True)

from lightning_modules.model.kernels import few_queries, few_rows  # noqa: E402
from lightning_modules.model.kernels.few_rows import Matrix, Norm  # noqa: E402
from lightning_modules.model.kernels.latent_append import append_latent  # noqa: E402
from tests.lightning_modules.model.kernels.few_rows_cases import (  # noqa: E402
    EPSILON,
    assert_rounded,
    both_types,
    draw,
    draw_remembered,
    normalised,
)

ROWS = [1, 3, few_rows.FEW_ROWS]


@both_types
@pytest.mark.parametrize("n_rows", ROWS)
@pytest.mark.parametrize("depth", [40, 2304])
def test_two_matrices_multiply_side_by_side(n_rows: int, depth: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, weight = draw(n_rows, depth, dtype=dtype), draw(depth, dtype=dtype) + 1
    first, second = draw(24, depth, dtype=dtype), draw(36, depth, dtype=dtype)
    product = few_rows.multiply(x, Matrix(first), Matrix(second), Norm(weight, EPSILON))
    assert_rounded(product, normalised(x, weight) @ torch.cat((first, second)).double().mT)


@both_types
@pytest.mark.parametrize("n_rows", ROWS)
def test_a_residual_is_added_to_rows_that_lie_apart(n_rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, matrix, residual = (
        draw(n_rows, 96, dtype=dtype)[:, 16:],
        draw(40, 80, dtype=dtype),
        draw(n_rows, 40, dtype=dtype),
    )
    product = few_rows.multiply(x, Matrix(matrix), residual=residual)
    assert_rounded(product, x.double() @ matrix.double().mT + residual.double())
    exact = few_rows.multiply(x, Matrix(matrix), dtype=torch.float32)
    assert_rounded(exact, x.double() @ matrix.double().mT)


@both_types
@pytest.mark.parametrize("n_rows", ROWS)
@pytest.mark.parametrize("interleaves", [True, False])
@pytest.mark.parametrize(("nope_dim", "rope_dim"), [(32, 16), (12, 4)])
def test_queries_are_projected_and_rotated(
    n_rows: int, interleaves: bool, nope_dim: int, rope_dim: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    x, weight = draw(n_rows, 96, dtype=dtype), draw(96, dtype=dtype) + 1
    matrix = draw(3 * (nope_dim + rope_dim), 96, dtype=dtype)
    remembered = draw_remembered(n_rows, rope_dim, interleaves, dtype)
    cos, sin = remembered.cos[:, 0], remembered.sin[:, 0]
    nope, rope = few_queries.project_queries(x, Matrix(matrix), Norm(weight, EPSILON), nope_dim, remembered)
    query = (normalised(x, weight) @ matrix.double().mT).unflatten(1, (3, -1))
    assert_rounded(nope, query[..., :nope_dim])
    assert_rounded(rope, rotate(query[..., nope_dim:], cos[:, None], sin[:, None], interleaves).double())
    cached = remembered.latent.clone(), remembered.rope_key.clone()
    append_latent(remembered)
    assert torch.equal(cached[0], remembered.latent)
    assert torch.equal(cached[1], remembered.rope_key)


@both_types
@pytest.mark.parametrize("n_rows", ROWS)
def test_heads_go_into_the_latent_space_and_out_of_it(n_rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    n_heads, nope_dim, value_dim, rank = 3, 24, 40, 80
    up = draw(n_heads * (nope_dim + value_dim), rank, dtype=dtype)
    key_up, value_up = up.double().unflatten(0, (n_heads, -1)).split((nope_dim, value_dim), dim=1)
    query, context = draw(n_rows, n_heads, nope_dim, dtype=dtype), draw(n_rows, n_heads, rank, dtype=dtype)
    absorbed = few_queries.absorb_queries(query, Matrix(up), rank)
    assert_rounded(absorbed, torch.einsum("nhk,hkr->nhr", query.double(), key_up))
    values = few_rows.raise_values(context, Matrix(up), nope_dim)
    assert_rounded(values, torch.einsum("nhr,hvr->nhv", context.double(), value_up))
