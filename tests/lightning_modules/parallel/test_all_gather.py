"""Experts spread over ranks that gather all tokens, held against all experts in one place."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_modules.model.dispatch import Dispatcher, LocalDispatcher
from lightning_modules.parallel.all_gather import AllGatherDispatcher
from lightning_modules.parallel.row_bound import RowBound
from tests.ranks import run_on_ranks

N_EXPERTS, N_CHOSEN, N_TOKENS, WIDTH = 8, 3, 137, 16


class Inputs:
    """One rank's tokens, gates and choices, among the first `n_experts`."""

    def __init__(self, seed: int, n_experts: int = N_EXPERTS) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.tokens = torch.randn(N_TOKENS, WIDTH, generator=rng)
        self.gates = torch.rand(N_TOKENS, N_CHOSEN, generator=rng)
        self.indices = torch.stack([torch.randperm(n_experts, generator=rng)[:N_CHOSEN] for _ in range(N_TOKENS)])


class Experts(nn.Module):
    """One matrix for each of the experts that `dispatcher` brings rows to."""

    def __init__(self, dispatcher: Dispatcher, experts: slice) -> None:
        super().__init__()
        weight = torch.randn(N_EXPERTS, WIDTH, WIDTH, generator=torch.Generator().manual_seed(9))
        self.weight = nn.Parameter(weight[experts].clone())
        self.dispatcher = dispatcher

    def forward(self, tokens: Tensor, gates: Tensor, indices: Tensor) -> Tensor:
        plan = self.dispatcher.plan(tokens, gates, indices)
        rows, row_gates, counts, way_back = self.dispatcher.dispatch(plan)
        # Behind the last expert's rows there may be room.
        numbers = torch.searchsorted(counts.cumsum(0), torch.arange(rows.shape[0]), right=True).clamp_max(
            len(counts) - 1
        )
        output = torch.einsum("ri,rio->ro", rows * row_gates.unsqueeze(-1), self.weight[numbers])
        return self.dispatcher.combine(output, way_back)


def run(experts: nn.Module, inputs: Inputs) -> list[Tensor]:
    """The output, and the gradients of tokens and gates."""
    tokens, gates = (tensor.clone().requires_grad_() for tensor in (inputs.tokens, inputs.gates))
    output = experts(tokens, gates, inputs.indices)
    output.backward(output.detach().cos())
    assert tokens.grad is not None
    assert gates.grad is not None
    return [output.detach(), tokens.grad, gates.grad]


def spread(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo")
    n_local = N_EXPERTS // 2
    here = slice(rank * n_local, (rank + 1) * n_local)
    experts = Experts(AllGatherDispatcher(N_EXPERTS, dist.group.WORLD), here)
    # Balanced, and with all tokens at the first rank's experts.
    for n_experts in (N_EXPERTS, n_local):
        experts.weight.grad = None
        results = run(experts, Inputs(rank, n_experts))
        torch.save([*results, experts.weight.grad], folder / f"{n_experts}_{rank}.pt")
    compiled = torch.compile(experts, backend="aot_eager", fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for n_experts in (N_EXPERTS, n_local):
            inputs = Inputs(rank, n_experts)
            for mine, reference in zip(run(compiled, inputs), run(experts, inputs), strict=True):
                torch.testing.assert_close(mine, reference)
    watch_bound(experts, compiled, rank)
    dist.barrier()
    dist.destroy_process_group()


def watch_bound(experts: Experts, compiled: nn.Module, rank: int) -> None:
    """With room to spare all is the same; where one rank's is too little, both know."""
    bound = RowBound(experts.dispatcher, torch.device("cpu"))
    for n_experts, fits in ((N_EXPERTS, True), (N_EXPERTS // 2, False), (N_EXPERTS // 2, True)):
        inputs = Inputs(rank, n_experts)
        expected = run(experts, inputs)
        bound.begin()
        bound.watch()
        results = run(compiled, inputs)
        bound.tell()
        assert bound.is_exceeded() is not fits
        bound.lift()
        if fits:
            for mine, reference in zip(results, expected, strict=True):
                torch.testing.assert_close(mine, reference)
        else:
            assert not torch.equal(results[0], expected[0])


def test_ranks_compute_what_one_does_and_compile_once(tmp_path: Path) -> None:
    run_on_ranks(spread, 2, tmp_path)
    for n_experts in (N_EXPERTS, N_EXPERTS // 2):
        one = Experts(LocalDispatcher(N_EXPERTS), slice(None))
        weights = []
        for rank in range(2):
            *results, of_weight = torch.load(tmp_path / f"{n_experts}_{rank}.pt", weights_only=True)
            weights.append(of_weight)
            for mine, reference in zip(results, run(one, Inputs(rank, n_experts)), strict=True):
                torch.testing.assert_close(mine, reference, rtol=1e-5, atol=2e-5)
        torch.testing.assert_close(torch.cat(weights), one.weight.grad, rtol=1e-5, atol=2e-5)
