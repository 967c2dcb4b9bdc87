"""Which dispatcher is taken where."""

import logging
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from lightning_modules.model.dispatch import LocalDispatcher
from lightning_modules.parallel.all_gather import AllGatherDispatcher
from lightning_modules.parallel.all_to_all import AllToAllDispatcher
from lightning_modules.parallel.dispatch_choice import choose_dispatcher


def choose(n_ranks: int, **settings: Any) -> Any:
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=n_ranks)
    try:
        return choose_dispatcher(32, init_device_mesh("cpu", (n_ranks,)), n_chosen=4, **settings)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("n_ranks", "kind", "expected"),
    [
        (1, "all_to_all", LocalDispatcher),
        (4, "auto", AllGatherDispatcher),
        (8, "auto", AllToAllDispatcher),
        (8, "all_gather", AllGatherDispatcher),
        (4, "all_to_all", AllToAllDispatcher),
    ],
)
def test_what_travels_least_is_chosen_unless_named(n_ranks: int, kind: str, expected: type) -> None:
    assert type(choose(n_ranks, kind=kind)) is expected


def test_what_was_asked_for_and_does_not_run_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        choose(8, kind="deep_ep")
        choose(8, dtype=None)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "moves BF16, and tokens are torch.float32" in caplog.records[1].message
