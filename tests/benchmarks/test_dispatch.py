import torch

from benchmarks.dispatch import draw_choices, there_and_back
from lightning_modules.model.dispatch import LocalDispatcher


def test_choices_are_limited_to_half_of_the_experts_and_do_not_repeat() -> None:
    indices = draw_choices(50, 16, 4, torch.device("cpu"))
    assert all(len(set(token)) == 4 for token in indices.tolist())
    assert all(len({expert // 2 for expert in token}) <= 4 for token in indices.tolist())


def test_experts_double_what_they_weigh() -> None:
    tokens, gates = torch.ones(6, 8, requires_grad=True), torch.rand(6, 2, requires_grad=True)
    output = there_and_back(LocalDispatcher(4), tokens, gates, torch.tensor([[0, 3]] * 6))
    torch.testing.assert_close(output, 2 * gates.detach().sum(dim=1, keepdim=True).expand(6, 8))
    assert tokens.grad is not None
    assert gates.grad is not None
