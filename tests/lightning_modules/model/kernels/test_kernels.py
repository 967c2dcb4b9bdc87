import pytest
import torch

from lightning_modules.model.dispatch import Permutation
from lightning_modules.model.exact_product import bf16_parts, exact_linear
from lightning_modules.model.experts import grouped_linear, weighted_swiglu
from lightning_modules.model.router import Router
from tests.conftest import TINY

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels run on a GPU")


def test_three_parts_hold_every_bit_of_fp32() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-20, 20, 1000)
    assert torch.equal(sum(part.double() for part in bf16_parts(x, 3)).float(), x)


@on_gpu
def test_the_product_of_parts_is_the_product() -> None:
    torch.manual_seed(0)
    rows = torch.randn(512, 768, device="cuda").bfloat16().requires_grad_()
    weight = (0.01 * torch.randn(24, 768, device="cuda")).requires_grad_()
    gradient = torch.randn(512, 24, device="cuda")
    exact_linear(rows, weight).backward(gradient)
    scores = exact_linear(rows, weight)
    exact = rows.detach().double() @ weight.detach().double().mT
    torch.testing.assert_close(scores.double(), exact, rtol=0, atol=1e-5 * float(exact.abs().max()))
    of_weight = gradient.double().mT @ rows.detach().double()
    torch.testing.assert_close(weight.grad.double(), of_weight, rtol=0, atol=2e-5 * float(of_weight.abs().max()))
    of_rows = gradient.double() @ weight.detach().double()
    torch.testing.assert_close(rows.grad.double(), of_rows, rtol=2**-8, atol=1e-4 * float(of_rows.abs().max()))


@on_gpu
@pytest.mark.parametrize(("n_experts", "n_groups", "kept", "n_chosen"), [(8, 4, 2, 2), (8, 1, 1, 2), (60, 5, 3, 4)])
def test_the_choice_of_experts_is_that_of_topk(n_experts: int, n_groups: int, kept: int, n_chosen: int) -> None:
    router = Router(TINY)
    router.n_groups, router.n_groups_kept, router.n_chosen = n_groups, kept, n_chosen
    scores = torch.rand(333, n_experts, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        router._choose(scores.cuda()).sort(dim=-1).values.cpu(), router._choose(scores).sort(dim=-1).values
    )


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_gpu)])
def test_rows_spread_and_summed_have_the_gradients_of_indexing(device: str) -> None:
    torch.manual_seed(0)
    indices = torch.stack([torch.randperm(6)[:3] for _ in range(50)]).to(device)
    tokens = torch.randn(50, 40, dtype=torch.float32, device=device, requires_grad=True)
    gates = torch.rand(50, 3, device=device, requires_grad=True)
    permutation = Permutation.sorting(indices)
    rows = permutation.rows_of(tokens)
    assert torch.equal(rows, tokens[permutation.order // 3])
    weights = torch.randn(150, 40, device=device)
    permutation.sum_of(rows * weights * permutation.gates_of(gates)[:, None]).square().sum().backward()
    got = tokens.grad, gates.grad
    tokens.grad = gates.grad = None
    choices = torch.empty_like(permutation.order).scatter_(0, permutation.order, torch.arange(150, device=device))
    plain = tokens.repeat_interleave(3, dim=0) * weights[choices] * gates.reshape(-1, 1)
    plain.unflatten(0, (50, 3)).sum(dim=1).square().sum().backward()
    for mine, reference in zip(got, (tokens.grad, gates.grad), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-4)


@on_gpu
@pytest.mark.parametrize("counts", [(3, 0, 70, 1, 130), (0, 0, 1), (256,)])
def test_experts_multiply_in_fp32_without_the_host(counts: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    rows = torch.randn(sum(counts), 40, device="cuda", requires_grad=True)
    weight = torch.randn(len(counts), 72, 40, device="cuda", requires_grad=True)
    gradient = torch.randn(sum(counts), 72, device="cuda")
    offsets = torch.tensor(counts, device="cuda").cumsum(0).to(torch.int32)
    product = grouped_linear(rows, weight, offsets)
    product.backward(gradient)
    parts = zip(
        rows.detach().double().split(counts), gradient.double().split(counts), weight.detach().double(), strict=True
    )
    expected, of_rows, of_weight = zip(*((x @ w.mT, g @ w, g.mT @ x) for x, g, w in parts), strict=True)
    torch.testing.assert_close(product.double(), torch.cat(expected), rtol=0, atol=1e-4)
    torch.testing.assert_close(rows.grad.double(), torch.cat(of_rows), rtol=0, atol=1e-4)
    torch.testing.assert_close(weight.grad.double(), torch.stack(of_weight), rtol=0, atol=1e-4)


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swiglu_weighs_rows_by_their_gates(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    gate_up = torch.randn(300, 2 * 72, device="cuda", dtype=dtype, requires_grad=True)
    gates = torch.rand(300, device="cuda", requires_grad=True)
    gradient = torch.randn(300, 72, device="cuda", dtype=dtype)
    weighted_swiglu(gate_up, gates).backward(gradient)
    exact, exact_gates = (x.detach().double().requires_grad_() for x in (gate_up, gates))
    gate, up = exact.chunk(2, dim=-1)
    expected = torch.nn.functional.silu(gate) * up * exact_gates[:, None]
    expected.backward(gradient.double())
    rounding = {"rtol": 2**-8, "atol": 1e-5} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(weighted_swiglu(gate_up, gates).double(), expected, **rounding)
    torch.testing.assert_close(gate_up.grad.double(), exact.grad, **rounding)
    torch.testing.assert_close(gates.grad.double(), exact_gates.grad, rtol=1e-4, atol=1e-4)
