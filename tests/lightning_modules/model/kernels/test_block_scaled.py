"""Products with weights in FP8 against those with the numbers they stand for; TRITON_INTERPRET=1 without a GPU."""

import os

import pytest
import torch
from torch import Tensor

from lightning_modules.model.block_scaled import BlockScales, Matrix
from lightning_modules.precision.emulation import quantise_128x128

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("the kernels run on a GPU or under TRITON_INTERPRET=1", allow_module_level=True)

from lightning_modules.model.kernels import chosen_experts, few_queries, few_rows, grouped_experts  # noqa: E402
from lightning_modules.model.kernels.chosen_experts import Experts  # noqa: E402
from lightning_modules.model.kernels.expert_ranks import Choices  # noqa: E402
from lightning_modules.model.kernels.few_rows import Norm  # noqa: E402
from lightning_modules.model.kernels.sorted_choices import sort_choices  # noqa: E402
from tests.lightning_modules.model.kernels.few_rows_cases import draw_remembered  # noqa: E402

DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32


def draw(*shape: int) -> Tensor:
    return (torch.randn(*shape, device=DEVICE) / shape[-1] ** 0.5).to(DTYPE)


def draw_blocks(*shape: int) -> Matrix:
    """A matrix, or a stack of them, whose blocks differ in size a hundredfold."""
    stack = torch.randn(shape).reshape(-1, *shape[-2:])
    rows = torch.logspace(-1, 1, shape[-2])[:, None] / shape[-1] ** 0.5
    parts = [quantise_128x128(matrix * rows) for matrix in stack]
    values, scales = torch.stack([part.values for part in parts]), torch.stack([part.scales for part in parts])
    return Matrix(values.view(shape).to(DEVICE), scales.view(*shape[:-2], *scales.shape[1:]).to(DEVICE))


def plain(matrix: Matrix) -> Matrix:
    """The same numbers, of which BF16 would lose some."""
    return Matrix((matrix.values.float() * BlockScales(matrix.scales).spread(matrix.values.shape)).to(DTYPE))


def assert_close(actual: Tensor, expected: Tensor) -> None:
    tolerance = 1e-5 if torch.float32 == DTYPE else 2**-6
    error = (actual.double() - expected.double()).abs().max() / expected.double().abs().max()
    assert error < tolerance, float(error)


@pytest.mark.parametrize("n_rows", [1, 3])
def test_projections(n_rows: int) -> None:
    torch.manual_seed(0)
    norm = Norm(draw(384) + 1, 1e-6)
    x, first, second = draw(n_rows, 384), draw_blocks(144, 384), draw_blocks(272, 384)
    assert_close(few_rows.multiply(x, first, second, norm), few_rows.multiply(x, plain(first), plain(second), norm))
    queries = draw_blocks(2 * 48, 384)
    for interleaves in (True, False):
        remembered = draw_remembered(n_rows, 16, interleaves, DTYPE)
        got, expected = (
            few_queries.project_queries(x, matrix, norm, 32, remembered) for matrix in (queries, plain(queries))
        )
        assert_close(got[0], expected[0])
        assert_close(got[1], expected[1])


@pytest.mark.parametrize("n_rows", [1, 3])
def test_heads(n_rows: int) -> None:
    torch.manual_seed(0)
    up = draw_blocks(3 * 80, 192)
    query, context = draw(n_rows, 3, 32), draw(n_rows, 3, 192)
    assert_close(few_queries.absorb_queries(query, up, 192), few_queries.absorb_queries(query, plain(up), 192))
    assert_close(few_rows.raise_values(context, up, 32), few_rows.raise_values(context, plain(up), 32))


@pytest.mark.parametrize(("n_rows", "n_shared"), [(2, 1), (20, 2)])
def test_experts(n_rows: int, n_shared: int) -> None:
    torch.manual_seed(0)
    shared = draw_blocks(n_shared * 128, 192), draw_blocks(n_shared * 128, 192), draw_blocks(192, n_shared * 128)
    matrices = *shared, draw_blocks(4, 256, 192), draw_blocks(4, 192, 128)
    indices = torch.stack([torch.randperm(4)[:2] for _ in range(n_rows)]).int().to(DEVICE)
    choices, hidden = Choices(indices, torch.rand(n_rows, 2, device=DEVICE)), draw(n_rows, 192)
    outputs = []
    for network in (matrices, map(plain, matrices)):
        experts = Experts(*network, n_shared, 128)
        if n_rows <= few_rows.FEW_ROWS:
            activations = chosen_experts.activate(hidden, Norm(draw(192) * 0 + 1, 1e-6), experts, choices)
            outputs.append(chosen_experts.project_down(activations, hidden, experts, choices))
        else:
            order = sort_choices(indices, 4)
            activations = grouped_experts.activate(hidden, experts, order, choices.weights)
            outputs.append(grouped_experts.project_down(activations, hidden, experts, order))
    assert_close(*outputs)
