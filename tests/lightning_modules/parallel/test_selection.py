"""Rows of the experts here, held against picking them one by one."""

import pytest
import torch
from torch import Tensor

from lightning_modules.model.experts import GroupedExperts
from lightning_modules.parallel.selection import PAGE, Choices, Selection

N_TOKENS, N_CHOSEN, N_EXPERTS, WIDTH = 90, 3, 8, 5


def selected(indices: Tensor, first: int, n_experts: int) -> Selection:
    choices = Choices.among(indices, first, n_experts)
    return Selection.of(choices, int(choices.rows_per_expert.sum()))


@pytest.fixture
def indices() -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.stack([torch.randperm(N_EXPERTS, generator=rng)[:N_CHOSEN] for _ in range(N_TOKENS)])


@pytest.mark.parametrize(("first", "n_experts"), [(0, 8), (2, 4), (7, 1)])
def test_rows_are_those_of_the_experts_here_in_their_order(indices: Tensor, first: int, n_experts: int) -> None:
    rng = torch.Generator().manual_seed(1)
    tokens, gates = torch.randn(N_TOKENS, WIDTH, generator=rng), torch.rand(N_TOKENS, N_CHOSEN, generator=rng)
    selection = selected(indices, first, n_experts)
    rows, row_gates = selection.rows_of(tokens), selection.gates_of(gates)
    expert = torch.arange(first, first + n_experts).repeat_interleave(selection.rows_per_expert)
    picked = [(token, k) for e in range(first, first + n_experts) for token, k in (indices == e).nonzero().tolist()]
    assert len(rows) % PAGE == 0
    assert len(rows) == len(expert) > len(picked)
    for row, (token, k) in enumerate(picked):
        assert torch.equal(rows[row], tokens[token])
        assert row_gates[row] == gates[token, k]
        assert expert[row] == indices[token, k]
    assert not rows[len(picked) :].any()
    assert not row_gates[len(picked) :].any()


def test_no_rows_are_a_page_of_zeros() -> None:
    selection = selected(torch.zeros(4, 1, dtype=torch.int64), 3, 2)
    assert selection.rows_per_expert.tolist() == [0, PAGE]
    assert not selection.rows_of(torch.ones(4, WIDTH)).any()
    assert not selection.sum_of(torch.ones(PAGE, WIDTH)).any()


def bounded(indices: Tensor, first: int, n_experts: int, room: int) -> Selection:
    return Selection.within(Choices.among(indices, first, n_experts), room)


def test_with_more_room_than_rows_the_rows_are_the_same(indices: Tensor) -> None:
    rng = torch.Generator().manual_seed(1)
    tokens, gates = torch.randn(N_TOKENS, WIDTH, generator=rng), torch.rand(N_TOKENS, N_CHOSEN, generator=rng)
    mine, reference = bounded(indices, 2, 4, room=200), selected(indices, 2, 4)
    n_rows = int(mine.rows_per_expert.sum())
    assert n_rows == (reference.order >= 0).sum() < 200
    assert mine.rows_per_expert[:-1].tolist() == reference.rows_per_expert[:-1].tolist()
    assert torch.equal(mine.rows_of(tokens)[:n_rows], reference.rows_of(tokens)[:n_rows])
    assert torch.equal(mine.gates_of(gates)[:n_rows], reference.gates_of(gates)[:n_rows])
    # What lies behind the last expert's rows may be anything, and enters no sum.
    rows = torch.full((200, WIDTH), torch.nan)
    rows[:n_rows] = reference.rows_of(tokens)[:n_rows]
    assert torch.equal(mine.sum_of(rows), reference.sum_of(reference.rows_of(tokens)))


def test_rows_without_room_are_left_out(indices: Tensor) -> None:
    selection = bounded(indices, 2, 4, room=50)
    counts = selected(indices, 2, 4).rows_per_expert.tolist()
    assert counts[0] < 50 < sum(counts[:2])
    assert selection.rows_per_expert.tolist() == [counts[0], 50 - counts[0], 0, 0]
    assert int((selection.places >= 0).sum()) == 50
    assert int(selection.places.max()) == 49


def test_gradients(indices: Tensor) -> None:
    selection = selected(indices[:6], 2, 4)
    rng = torch.Generator().manual_seed(2)
    tokens = torch.randn(6, 2, dtype=torch.float64, generator=rng, requires_grad=True)
    gates = torch.rand(6, N_CHOSEN, dtype=torch.float64, generator=rng, requires_grad=True)

    def weighted(tokens: Tensor, gates: Tensor) -> Tensor:
        return selection.sum_of(selection.rows_of(tokens) * selection.gates_of(gates).unsqueeze(-1))

    assert torch.autograd.gradcheck(weighted, (tokens, gates))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_selects_alike(indices: Tensor) -> None:
    tokens = torch.randn(N_TOKENS, WIDTH)
    here, there = (selected(i, 2, 4) for i in (indices, indices.cuda()))
    assert torch.equal(there.rows_of(tokens.cuda()).cpu(), here.rows_of(tokens))
    rows = torch.randn(len(here.order), WIDTH)
    torch.testing.assert_close(there.sum_of(rows.cuda()).cpu(), here.sum_of(rows))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_experts_make_the_same_of_rows_that_have_room_to_spare_on_a_gpu() -> None:
    torch.manual_seed(0)
    n_tokens, hidden = 512, 256
    experts = GroupedExperts(4, hidden, 128).to("cuda", torch.bfloat16)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    indices = torch.rand(n_tokens, 8, device="cuda").topk(2).indices
    tokens = torch.randn(n_tokens, hidden, device="cuda", dtype=torch.bfloat16)
    gates = torch.rand(n_tokens, 2, device="cuda")

    def run(selection: Selection) -> list[Tensor]:
        # What is handed out as room has held such numbers.
        torch.full((64 * 2**20,), torch.nan, device="cuda")
        inputs = [tensor.clone().requires_grad_() for tensor in (tokens, gates)]
        rows, row_gates = selection.rows_of(inputs[0]), selection.gates_of(inputs[1])
        output = selection.sum_of(experts(rows, row_gates, selection.rows_per_expert))
        return [output, *torch.autograd.grad(output.float().square().sum(), [*inputs, *experts.parameters()])]

    for mine, reference in zip(run(bounded(indices, 0, 4, 1024)), run(selected(indices, 0, 4)), strict=True):
        assert not mine.isnan().any()
        torch.testing.assert_close(mine, reference, rtol=2e-2, atol=1e-3 * float(reference.abs().max()))
