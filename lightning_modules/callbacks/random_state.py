"""The state of all random number generators, kept with checkpoints."""

import hashlib
import random
from typing import Any

import lightning as L  # noqa: N812
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

RANDOM_STATES = "random_states"


class RandomState(L.Callback):
    """Saves every rank's random state, and brings it back before the first step of a training that goes on.

    On as many ranks as before each gets its own state back. On another number of them each seeds its generators with a
    digest of the first rank's state, the number of ranks and its own: the same every time, and different on each.
    """

    def __init__(self) -> None:
        self._restored: list[dict[str, Any]] = []
        self._state: dict[str, Any] | None = None
        self._step = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the state at the end of an optimizer step: a checkpoint of it is written when the next one begins."""
        if trainer.global_step != self._step:
            self._step, self._state = trainer.global_step, random_state()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the state after the step's validation instead."""
        self._state = random_state()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Collect the states of all ranks on the first, which writes them."""
        states: list[Any] = [self._state or random_state()]
        if trainer.world_size > 1:
            gathered: list[Any] | None = [None] * trainer.world_size if trainer.is_global_zero else None
            dist.gather_object(states[0], gathered)
            states = gathered or []
        checkpoint[RANDOM_STATES] = states

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember the states; what happens until training starts may still draw numbers."""
        self._restored = checkpoint.get(RANDOM_STATES, [])

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Go on drawing where the checkpoint was saved."""
        if not self._restored:
            return
        if len(self._restored) == trainer.world_size:
            set_random_state(self._restored[trainer.global_rank])
        else:
            seed_everything(derived_seed(self._restored[0], trainer.global_rank, trainer.world_size))
        self._restored = []


def random_state() -> dict[str, Any]:
    """The state of torch's (CPU and this process's GPU), numpy's and Python's generators, as plain values."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put all generators into a state that `random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    random.setstate(state["python"])


def derived_seed(state: dict[str, Any], rank: int, world_size: int) -> int:
    """A seed for one of `world_size` ranks, from the state another number of them was in."""
    generator: Tensor = state["torch"]
    digest = hashlib.sha256(generator.numpy().tobytes() + f"{rank}/{world_size}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def seed_everything(seed: int) -> None:
    """Seed all generators, and nothing else: Lightning's function of this name also writes the environment."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
