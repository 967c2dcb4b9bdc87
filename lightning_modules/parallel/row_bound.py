"""Room for experts' rows that is made beforehand, so that no host has to know how many come."""

import logging
import math
import time

import torch
import torch.distributed as dist

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.experts import GroupedExperts, MixtureOfExperts
from lightning_modules.parallel.all_gather import AllGatherDispatcher

log = logging.getLogger(__name__)

# Room in eighths of an equal share, at first; and by how much it is more than what has exceeded it.
SPARE = 12
GROWTH = 9 / 8
# Seconds between two looks at a number that is to come: a backward pass takes a hundred times longer.
PAUSE = 2e-4


class RowBound:
    """Bounds the rows that a rank's experts receive in a training step, and tells whether that was enough.

    Which experts tokens choose is known to the GPU alone. A host that makes room for their rows has to read in every
    layer how many there are, and what waits for a number on the host cannot be recorded. So there is room for more than
    come as long as ranks are about equally loaded. Rows that find none are left out, which all ranks hear of: such a
    step counts for nothing, and is computed once more without a bound. No token is dropped.

    Args:
        dispatcher: of all layers.
        device: where it computes.
    """

    def __init__(self, dispatcher: AllGatherDispatcher, device: torch.device) -> None:
        self._dispatcher = dispatcher
        self._spare = SPARE
        dispatcher.fullest = torch.zeros((), device=device)
        self._on_host = torch.empty((), pin_memory=device.type == "cuda")

    def begin(self) -> None:
        """Bound the step that is computed next, or whose recording is launched."""
        self._dispatcher.spare = self._spare
        self._on_host.fill_(-1.0)

    def lift(self) -> None:
        """Bound nothing until the next step begins."""
        self._dispatcher.spare = None

    def watch(self) -> None:
        """Before the forward pass: look how many rows come from here on. A recording does so itself, as it `tell`s."""
        self._dispatcher.fullest.zero_()

    def tell(self) -> None:
        """After the forward pass: let every rank's host know."""
        fullest = self._dispatcher.fullest.clone()
        dist.all_reduce(fullest, dist.ReduceOp.MAX)
        self._on_host.copy_(fullest, non_blocking=True)

    def is_exceeded(self) -> bool:
        """Whether rows of any rank found no room; the bound is lifted then, and wider for later steps.

        Waits until the forward pass has ended, and not for the backward pass.
        """
        while (fullest := float(self._on_host)) < 0:
            time.sleep(PAUSE)
        if fullest <= 1:
            return False
        self._spare = math.ceil(self._spare * fullest * GROWTH)
        self.lift()
        log.info(
            "Experts of one rank received %.2f times the rows there was room for; there is more from now on.", fullest
        )
        return True


def bound_rows(decoder: Decoder, device: torch.device) -> RowBound | None:
    """A bound for all layers of `decoder`; None where that does not spare the host all numbers."""
    mixtures = [module for module in decoder.modules() if isinstance(module, MixtureOfExperts)]
    dispatchers = {mixture.dispatcher for mixture in mixtures}
    are_stacks = all(isinstance(mixture.experts, GroupedExperts) for mixture in mixtures)
    if len(dispatchers) != 1 or not are_stacks:
        return None
    (dispatcher,) = dispatchers
    return RowBound(dispatcher, device) if isinstance(dispatcher, AllGatherDispatcher) else None
