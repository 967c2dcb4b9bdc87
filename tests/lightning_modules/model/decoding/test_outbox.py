"""What is posted arrives as it was then, in order."""

import pytest
import torch

from lightning_modules.model.decoding.outbox import Outbox

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_values_arrive_as_they_were_when_posted(device: str) -> None:
    outbox: Outbox[str] = Outbox()
    values = torch.zeros(2, 3, dtype=torch.long, device=device)
    assert not outbox.has_arrived()
    for step in range(4):
        values.fill_(step)
        outbox.post(values[: 1 + step % 2], ["a", "b"][: 1 + step % 2])
    assert len(outbox) == 4
    for step in range(3):
        assert outbox.take() == [("a", [step] * 3), ("b", [step] * 3)][: 1 + step % 2]
    values.fill_(9)
    outbox.post(values, ["c", "d"])
    assert outbox.take() == [("a", [3] * 3), ("b", [3] * 3)]
    assert outbox.take() == [("c", [9] * 3), ("d", [9] * 3)]
    assert not outbox.has_arrived()
