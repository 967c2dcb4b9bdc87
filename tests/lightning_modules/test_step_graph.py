import weakref

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.step_graph import N_WARM_UPS, StepGraph

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


def test_inputs_of_every_shape_warm_up_anew() -> None:
    graph = StepGraph(lambda x: (x.sum(), ()), [], n_accumulated=1)
    few, many = (torch.zeros(2), 5), (torch.zeros(3), 5)
    assert [graph.is_ready(few) for _ in range(N_WARM_UPS + 1)] == [False] * N_WARM_UPS + [True]
    assert not graph.is_ready(many)
    assert not graph.is_ready((torch.zeros(3), 6))
    assert not graph.is_ready(few)


class Limit:
    """One that is too low for a step, and then is not."""

    def __init__(self) -> None:
        self.holds = False
        self.is_low = True
        self.calls: list[str] = []

    def begin(self) -> None:
        self.holds = True

    def watch(self) -> None:
        self.calls.append("watch")

    def tell(self) -> None:
        self.calls.append("tell")

    def is_exceeded(self) -> bool:
        is_exceeded, self.is_low = self.is_low, False
        self.holds = self.holds and not is_exceeded
        return is_exceeded

    def lift(self) -> None:
        self.holds = False


def test_what_exceeds_a_bound_is_computed_once_more_without() -> None:
    limit, computed = Limit(), []

    def compute(x: Tensor) -> tuple[Tensor, bool]:
        computed.append(limit.holds)
        return x.sum(), limit.holds

    graph = StepGraph(compute, [], n_accumulated=1, bound=limit)
    assert [graph.compute(torch.ones(2))[1] for _ in range(N_WARM_UPS)] == [False, True]
    assert computed == [True, False, True]
    assert limit.calls == ["watch", "tell"] * 2
    # What was exceeded counts for no warm-up.
    assert not graph.is_ready(torch.ones(2))
    graph.lift_bound()
    assert not limit.holds


def test_what_a_step_in_vain_has_kept_is_gone_before_the_next() -> None:
    kept: list[weakref.ref[Tensor]] = []

    def compute(x: Tensor) -> tuple[Tensor, tuple[()]]:
        assert all(output() is None for output in kept)
        output = x.sum()
        kept.append(weakref.ref(output))
        return output, ()

    StepGraph(compute, [], n_accumulated=1, bound=Limit()).compute(torch.ones(2))
    assert len(kept) == 2


def network() -> tuple[nn.Module, list[Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 4)).cuda()
    return model, [torch.randn(5, 8, device="cuda") for _ in range(4)]


@on_gpu
@pytest.mark.parametrize("sum_up", [False, True])
def test_a_replay_gives_what_the_step_itself_gives(sum_up: bool) -> None:
    model, inputs = network()

    def compute(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        y = model(x)
        return y.square().mean(), {"largest": y.max()}

    graph = StepGraph(compute, model.parameters(), n_accumulated=2 if sum_up else 1)
    while not graph.is_ready(inputs[0]):
        compute(inputs[0])[0].backward()
    model.zero_grad()
    told = []
    for x in inputs:
        told.append(graph.run(x))
        graph.place_gradients(sum_up)
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for x, (loss, others) in zip(inputs, told, strict=True):
        expected, largest = compute(x)
        if not sum_up:
            model.zero_grad()
        (expected / (2 if sum_up else 1)).backward()
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(others["largest"], largest["largest"].detach())
    torch.testing.assert_close(found, [p.grad for p in model.parameters()])


@on_gpu
def test_recording_leaves_gradients_alone_and_weights_may_change_between_replays() -> None:
    model, (x, *_) = network()
    graph = StepGraph(lambda x: (model(x).sum(), ()), model.parameters(), n_accumulated=1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    while not graph.is_ready(x):
        model(x).sum()
    before, _ = graph.run(x)
    assert all(bool((p.grad == 1).all()) for p in model.parameters())
    with torch.no_grad():
        model[2].bias += 1
    after, _ = graph.run(x)
    torch.testing.assert_close(after, before + x.shape[0] * 4)
