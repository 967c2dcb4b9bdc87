"""What every peer shares: the loss over our targets, our clipping, our AdamW settings."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn

from benchmarks.clock import StepClock
from benchmarks.training.workload import RandomBatches, Workload
from lightning_modules.batch import Batch
from lightning_modules.model.token_loss import IGNORED_TARGET

log = logging.getLogger(__name__)


class Peer(ABC):
    """A model of another code base in training, with our first weights.

    Args:
        workload: the training that it shall repeat.
        weights: our decoder's first weights by their names, whole.
        device: what it trains on.
    """

    NAME: str

    def __init__(self, workload: Workload, weights: Mapping[str, Tensor], device: torch.device) -> None:
        self.workload = workload
        self.device = device
        self.model = self.build(weights)
        matrices = [p for p in self.model.parameters() if p.ndim >= 2]
        vectors = [p for p in self.model.parameters() if p.ndim < 2]
        settings = workload.optimizer
        self.optimizer = self.build_optimizer(
            [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        )

    @abstractmethod
    def build(self, weights: Mapping[str, Tensor]) -> nn.Module:
        """The model on its device, with these weights."""

    @abstractmethod
    def logits(self, tokens: Tensor, batch: Batch) -> Tensor:
        """Scores of the next token at every position of `tokens` [B, T]."""

    def build_optimizer(self, groups: list[dict[str, object]]) -> torch.optim.Optimizer:
        """AdamW in its fastest form."""
        settings = self.workload.optimizer
        return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy over `targets` [B, T] that count."""
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED_TARGET)

    def clip(self, max_norm: float) -> None:
        """Clip the total norm of all gradients."""
        nn.utils.clip_grad_norm_(self.model.parameters(), max_norm, foreach=True)

    def step(self, batch: Batch) -> Tensor:
        """One optimizer step; its loss, on the device."""
        batch = move_data_to_device(batch, self.device)
        loss = self.loss(self.logits(batch.tokens[:, : batch.n_positions], batch), batch.targets()[0])
        loss.backward()
        if self.workload.trainer.gradient_clip_val is not None:
            self.clip(self.workload.trainer.gradient_clip_val)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


class Opponent:
    """A peer that trains as many steps on the same batches as we have: in turns with us, or once we are done.

    Args:
        kind: of peer; built once weights are there.
        workload: the training.
        clock: of its steps.
        turn: steps of ours after which it takes its own.
        rank: of this process.
        world_size: processes.
    """

    def __init__(
        self, kind: type[Peer], workload: Workload, clock: StepClock, turn: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.kind = kind
        self.workload = workload
        self.clock = clock
        self.turn = turn
        self.world_size = world_size
        self.losses: list[Tensor] = []
        self.weights: dict[str, Tensor] = {}
        self._batches: Iterator[Batch] = iter(RandomBatches(workload, rank, world_size))
        self._peer: Peer | None = None

    def meet(self, decoder: nn.Module) -> None:
        """Keep our first weights, on the CPU."""
        self.weights = {name: whole(tensor).to("cpu", copy=True) for name, tensor in decoder.state_dict().items()}

    def catch_up(self, n_steps: int) -> None:
        """Train up to `n_steps` steps."""
        if self._peer is None:
            self._peer = self.kind(self.workload, self.weights, self.clock.device)
            self.weights = {}
            log.info("%s has its weights.", self.kind.NAME)
        while self.clock.n_steps < n_steps:
            batch = next(self._batches)
            self.clock.start()
            self.losses.append(self._peer.step(batch))
            self.clock.stop()

    def first_losses(self, n_steps: int) -> list[Tensor]:
        """Of the first steps, each the mean over all ranks; every rank has to ask."""
        losses = torch.stack(self.losses[:n_steps])
        if self.world_size > 1:
            dist.all_reduce(losses)
        return list(losses / self.world_size)


def whole(tensor: Tensor) -> Tensor:
    """All of a DTensor; anything else as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
