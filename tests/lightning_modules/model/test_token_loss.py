"""The chunked cross-entropy, against torch's own in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model.token_loss import IGNORED_TARGET, chunked_cross_entropy, summed_cross_entropy

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel runs on a GPU")


def operands(n_rows: int, width: int, n_words: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, a head's weight, and targets of which some are ignored."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n_rows, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(n_words, width, generator=generator, dtype=torch.float64) * 2 / width**0.5
    targets = torch.randint(n_words, (n_rows,), generator=generator)
    targets[::5] = IGNORED_TARGET
    return hidden.to(dtype), weight.to(dtype), targets


def with_gradients(loss: Tensor, hidden: Tensor, weight: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and the gradients that `share` of it has."""
    return loss.detach(), *torch.autograd.grad(loss * share, (hidden, weight))


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(hidden @ weight.mT, targets, ignore_index=IGNORED_TARGET, reduction="sum")


@pytest.mark.parametrize("rows_per_chunk", [1, 7, 20, 64])
def test_chunks_add_up_to_the_whole(rows_per_chunk: int) -> None:
    hidden, weight, targets = operands(20, 12, 33, torch.float64)
    leaves = hidden.requires_grad_(), weight.requires_grad_()
    chunked = with_gradients(chunked_cross_entropy(*leaves, targets, rows_per_chunk), *leaves, share=0.3)
    whole = with_gradients(plain(*leaves, targets), *leaves, share=0.3)
    for mine, reference in zip(chunked, whole, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        evaluated = chunked_cross_entropy(*leaves, targets, rows_per_chunk)
    torch.testing.assert_close(evaluated, whole[0], rtol=1e-6, atol=0, check_dtype=False)


def test_rows_without_targets_lose_and_learn_nothing() -> None:
    hidden, weight, targets = operands(6, 4, 9, torch.float64)
    leaves = hidden.requires_grad_(), weight.requires_grad_()
    none = torch.full_like(targets, IGNORED_TARGET)
    for value in with_gradients(chunked_cross_entropy(*leaves, none, 4), *leaves, share=1.0):
        assert not value.any()


def test_in_bf16_gradients_are_rounded_but_not_their_scale() -> None:
    hidden, weight, targets = operands(200, 64, 500, torch.bfloat16)
    leaves = hidden.requires_grad_(), weight.requires_grad_()
    mine = with_gradients(chunked_cross_entropy(*leaves, targets, 64), *leaves, share=1 / 3)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    reference = with_gradients(plain(*exact, targets), *exact, share=1 / 3)
    assert float(mine[0]) == pytest.approx(float(reference[0]), rel=1e-3)
    for gradient, expected in zip(mine[1:], reference[1:], strict=True):
        assert gradient.dtype == torch.bfloat16
        error = (gradient.double() - expected).norm() / expected.norm()
        assert error < 6e-3
        # Systematic errors of the scale would add up in the projection onto the exact gradient.
        assert float((gradient.double() * expected).sum() / expected.square().sum()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_cpu_it_is_torch_s_own_to_the_last_bit(dtype: torch.dtype) -> None:
    hidden, weight, targets = operands(40, 16, 50, dtype)
    scores = F.linear(hidden, weight).float()
    expected = F.cross_entropy(scores, targets, ignore_index=IGNORED_TARGET, reduction="sum")
    batched = summed_cross_entropy(hidden.unflatten(0, (4, 10)), weight, targets.unflatten(0, (4, 10)))
    assert torch.equal(batched, expected)


@on_gpu
@pytest.mark.parametrize("n_words", [500, 8192, 32007])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kernel_s_loss_and_gradients_are_those_of_float64(n_words: int, dtype: torch.dtype) -> None:
    hidden, weight, targets = (x.cuda() for x in operands(3000, 256, n_words, dtype))
    leaves = hidden.requires_grad_(), weight.requires_grad_()
    mine = with_gradients(summed_cross_entropy(*leaves, targets), *leaves, share=1 / 3)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    reference = with_gradients(plain(*exact, targets), *exact, share=1 / 3)
    assert float(mine[0]) == pytest.approx(float(reference[0]), rel=1e-3)
    for gradient, expected in zip(mine[1:], reference[1:], strict=True):
        assert gradient.dtype == dtype
        assert (gradient.double() - expected).norm() / expected.norm() < 6e-3
