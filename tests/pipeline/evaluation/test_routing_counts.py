import torch

from lightning_modules.model.router import Routing
from pipeline.evaluation.routing_counts import RoutingCounts


def routing(indices: torch.Tensor, n_experts: int) -> Routing:
    return Routing(indices, torch.ones(indices.shape), torch.zeros(len(indices), n_experts))


def test_choices_are_counted_by_codebook_document_and_pair() -> None:
    counts = RoutingCounts(n_codebooks=2, n_documents=2, n_experts=3)
    chosen = torch.tensor([[0, 1], [0, 2], [1, 2], [0, 1]])
    counts.add(
        routing(chosen, 3),
        torch.tensor([0, 1, 0, 1]),
        torch.tensor([0, 0, 1, 1]),
        torch.tensor([True, True, True, False]),
    )
    assert counts.by_codebook.tolist() == [[1, 2, 1], [1, 0, 1]]
    assert counts.by_document.tolist() == [[2, 1, 1], [0, 1, 1]]
    assert counts.together.tolist() == [[2, 1, 1], [1, 2, 1], [1, 1, 2]]
    assert counts.load.tolist() == [2, 2, 2]
    names, by_speaker = counts.by_speaker(["b", "a"])
    assert (names, by_speaker.tolist()) == (["a", "b"], [[0, 1, 1], [2, 1, 1]])


def test_pairs_that_go_together_have_a_lift_above_one() -> None:
    counts = RoutingCounts(1, 1, 4)
    chosen = torch.tensor([[0, 1]] * 30 + [[2, 3]] * 30 + [[0, 2]] * 5)
    zeros = torch.zeros(len(chosen), dtype=torch.long)
    counts.add(routing(chosen, 4), zeros, zeros, torch.ones(len(chosen), dtype=torch.bool))
    lift = counts.lift()
    assert lift.diagonal().isnan().all()
    assert min(lift[0, 1], lift[2, 3]) > 2
    assert max(lift[0, 2], lift[1, 3]) < 1
    torch.testing.assert_close(lift, lift.T, equal_nan=True)


def test_independent_choices_have_a_lift_of_one() -> None:
    counts = RoutingCounts(1, 1, 6)
    chosen = torch.rand(40_000, 6, generator=torch.Generator().manual_seed(0)).topk(2).indices
    zeros = torch.zeros(len(chosen), dtype=torch.long)
    counts.add(routing(chosen, 6), zeros, zeros, torch.ones(len(chosen), dtype=torch.bool))
    assert float(counts.lift()[0, 1:].sub(1).abs().max()) < 0.06
