"""Tensors that wait on the host: what comes back, when it travels, and what memory it leaves."""

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.model import host_room
from lightning_modules.model.host_room import HostRoom

N_SAVED = 4


class Copies:
    """Copies as a CPU can make them, each by the numbers that it moves."""

    def __init__(self) -> None:
        self.places: set[int] = set()
        self.out: list[float] = []
        self.back: list[float] = []

    def begin(self, target: Tensor, source: Tensor, device: torch.device) -> None:
        direction = self.out if target.data_ptr() in self.places else self.back
        direction.append(float(source.flatten()[0]))
        target.copy_(source)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Copies:
    """Everything moves, at once, and is noted."""
    noted, take = Copies(), HostRoom.take

    def noted_take(room: HostRoom, like: Tensor) -> Tensor:
        place = take(room, like)
        noted.places.add(place.data_ptr())
        return place

    monkeypatch.setattr(HostRoom, "take", noted_take)
    # An empty tensor of checkpoint's own lies on the CPU always.
    monkeypatch.setattr(host_room, "moves", lambda tensor: tensor.numel() > 0)
    monkeypatch.setattr(host_room, "begin_copy", noted.begin)
    monkeypatch.setattr(host_room, "end_copy", lambda *_: None)
    return noted


def chain(room: HostRoom, first: float) -> tuple[Tensor, Tensor, list[Any]]:
    """A parameter times tensors of one number each, which alone are saved, and references to these."""
    parameter, total, inputs = torch.ones(8, requires_grad=True), torch.zeros(()), []
    for place in range(N_SAVED):
        saved = torch.full((8,), first + place)
        with room.holding():
            total = total + (parameter * saved).sum()
        inputs.append(weakref.ref(saved))
        del saved
    return parameter, total, inputs


def test_what_was_sent_comes_back_one_ahead_and_its_place_is_taken_again(copies: Copies) -> None:
    room = HostRoom()
    for first in (1.0, 11.0):
        copies.out.clear()
        copies.back.clear()
        parameter, total, inputs = chain(room, first)
        gc.collect()
        # The last has not left: its backward pass comes first.
        assert [reference() is None for reference in inputs] == [True] * (N_SAVED - 1) + [False]
        total.backward()
        numbers = [first + place for place in range(N_SAVED)]
        assert copies.out == numbers
        assert copies.back == numbers[-2::-1]
        assert parameter.grad is not None
        assert parameter.grad.tolist() == [sum(numbers)] * 8
        del total
    assert len(copies.places) == N_SAVED


def test_what_is_sent_is_what_it_was_then(copies: Copies) -> None:
    room, parameter, saved = HostRoom(), torch.ones(8, requires_grad=True), torch.full((8,), 3.0)
    with room.holding():
        product = parameter * saved
        other = parameter * torch.ones(8)
    saved.zero_()  # its memory is somebody else's by then
    (product + other).sum().backward()
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [4.0] * 8


def test_offloaded_blocks_have_the_gradients_of_those_that_stay(build_decoder, copies: Copies) -> None:
    decoder = build_decoder()
    offloaded = copy.deepcopy(decoder)
    offloaded.recompute = "blocks_offloaded"
    tokens = torch.randint(0, 40, (2, 20))
    for model in (decoder, offloaded):
        for _ in range(2):
            model(tokens).logits.square().mean().backward()
    assert len(copies.out) >= 2 * len(decoder.layers)
    for (name, parameter), other in zip(decoder.named_parameters(), offloaded.parameters(), strict=True):
        assert parameter.grad is other.grad is None or torch.equal(parameter.grad, other.grad), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies beside a computation need a GPU")
def test_a_gpus_copies_are_there_when_they_are_needed(build_decoder) -> None:
    decoder = build_decoder(hidden_size=256).cuda()
    offloaded = copy.deepcopy(decoder)
    offloaded.recompute = "blocks_offloaded"
    tokens = torch.randint(0, 40, (8, 512), device="cuda")
    for model in (decoder, offloaded):
        for _ in range(3):
            model.zero_grad()
            model(tokens).logits.square().mean().backward()
    for parameter, other in zip(decoder.parameters(), offloaded.parameters(), strict=True):
        if parameter.grad is not None:
            torch.testing.assert_close(other.grad, parameter.grad)
