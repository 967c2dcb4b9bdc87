"""Muon: its directions against singular values in float64, its steps against torch's own, and what it is given."""

import io

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.muon import COEFFICIENTS, N_ITERATIONS, Muon, orthogonal

LR, WEIGHT_DECAY, MOMENTUM = 1e-2, 0.1, 0.95


def build(groups: list[dict], moments: torch.dtype = torch.float32) -> Muon:
    return Muon(groups, LR, (0.9, 0.95), 1e-8, moments, MOMENTUM)


def hidden(parameters: list[nn.Parameter], n_stacked: int = 1) -> dict:
    return {"params": parameters, "weight_decay": WEIGHT_DECAY, "n_stacked": n_stacked}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: range) -> None:
    for number in steps:
        for place, parameter in enumerate(parameters):
            parameter.grad = draw(*parameter.shape, seed=100 * number + place)
        optimizer.step()


@pytest.mark.parametrize("shape", [(3, 16, 40), (3, 40, 16), (1, 24, 24)])
def test_directions_are_the_polynomial_of_singular_values(shape: tuple[int, int, int]) -> None:
    matrices = draw(*shape) * 1e-3
    left, values, right = torch.linalg.svd(matrices.double(), full_matrices=False)
    values /= values.norm(dim=1, keepdim=True)
    a, b, c = COEFFICIENTS
    for _ in range(N_ITERATIONS):
        values = a * values + b * values**3 + c * values**5
    assert values.min() > 0.65
    assert values.max() < 1.25
    torch.testing.assert_close(orthogonal(matrices).double(), left * values[:, None] @ right, rtol=0, atol=1e-4)


def test_zeros_have_no_direction() -> None:
    assert not orthogonal(torch.zeros(2, 8, 8)).any()


@pytest.mark.parametrize("shape", [(16, 40), (40, 16)])
def test_steps_are_those_of_torch(shape: tuple[int, int]) -> None:
    ours, theirs = nn.Parameter(draw(*shape)), nn.Parameter(draw(*shape))
    reference = torch.optim.Muon(
        [theirs], lr=LR, weight_decay=WEIGHT_DECAY, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"
    )
    step(build([hidden([ours])]), [ours], range(4))
    step(reference, [theirs], range(4))
    # It multiplies in BF16.
    moved = theirs.detach() - draw(*shape)
    assert (ours.detach() - theirs.detach()).norm() / moved.norm() < 0.02


def test_stacked_matrices_step_as_they_would_apart() -> None:
    stack = nn.Parameter(draw(3, 32, 12))
    apart = [nn.Parameter(matrix.clone()) for expert in stack.detach() for matrix in expert.chunk(2)]
    stack.grad = draw(3, 32, 12, seed=1)
    for parameter, gradient in zip(apart, (g for expert in stack.grad for g in expert.chunk(2)), strict=True):
        parameter.grad = gradient.clone()
    build([hidden([stack], n_stacked=2)]).step()
    build([hidden(apart)]).step()
    torch.testing.assert_close(stack.view(6, 16, 12), torch.stack(list(apart)), rtol=1e-6, atol=1e-7)


def test_other_groups_step_by_adamw() -> None:
    ours, theirs = nn.Parameter(draw(6, 5)), nn.Parameter(draw(6, 5))
    matrix = nn.Parameter(draw(8, 8))
    optimizer = build([hidden([matrix]), {"params": [ours], "weight_decay": WEIGHT_DECAY}])
    reference = torch.optim.AdamW([theirs], lr=LR, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY)
    for number in range(3):
        matrix.grad = draw(8, 8, seed=number)
        ours.grad, theirs.grad = draw(6, 5, seed=number), draw(6, 5, seed=number)
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    assert set(optimizer.state[matrix]) == {"momentum_buffer"}


@pytest.mark.parametrize("moments", [torch.float32, torch.bfloat16])
def test_a_resumed_training_goes_on_bit_for_bit(moments: torch.dtype) -> None:
    def begin() -> tuple[list[nn.Parameter], Muon]:
        parameters = [nn.Parameter(draw(8, 12)), nn.Parameter(draw(12))]
        return parameters, build([hidden(parameters[:1]), {"params": parameters[1:]}], moments)

    parameters, optimizer = begin()
    step(optimizer, parameters, range(3))
    file = io.BytesIO()
    torch.save((optimizer.state_dict(), parameters), file)
    step(optimizer, parameters, range(3, 6))
    file.seek(0)
    state, saved = torch.load(file, weights_only=True)
    resumed, again = begin()
    again.load_state_dict(state)
    for parameter, weight in zip(resumed, saved, strict=True):
        parameter.data.copy_(weight)
    step(again, resumed, range(3, 6))
    assert again.state[resumed[0]]["momentum_buffer"].dtype == moments
    assert all(torch.equal(a, b) for a, b in zip(parameters, resumed, strict=True))
