"""What the processes of one training agree on before they are connected: who writes, and what the others go by."""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from torch.distributed import DistNetworkError, PrefixStore, Store, rendezvous

from lightning_modules.parallel.slurm import SlurmTask
from pipeline.plumbing.nested import differing, leaves
from pipeline.plumbing.rank import rank_of_this_process

# Where the first process leaves its answer for those that it starts.
ANSWER_VARIABLE = "MELISMA_FIRST_RANK_ANSWER"
PATIENCE = timedelta(minutes=10)
# How long a first rank that failed stays, for the others to hear why.
FAREWELL = timedelta(seconds=30)
ANSWERED, FAILED = "answered ", "failed "


class Ranks:
    """The processes of one training, as this one sees them.

    Attributes:
        rank: this process's.
        store: what connects the processes; None where there is one, or the first starts the rest.
    """

    def __init__(self) -> None:
        self.rank = rank_of_this_process()
        # Kept, because the first rank may be the server that the others ask.
        self.store, self._world_size = _store()

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def settle(self, decide: Callable[[Mapping[int, str]], str], claim: str = "") -> str:
        """Let the first rank `decide`, while the others wait, and return its answer on all.

        Processes that the first one starts later find the answer in their environment.

        Args:
            decide: called on the first rank with what the others claim, by rank.
            claim: what the first should know of this process.

        Raises:
            RuntimeError: on the others, when the first failed; it raises its own error.
        """
        key = "first rank"
        if not self.is_first:
            if self.store is None:
                return os.environ[ANSWER_VARIABLE]
            self.store.set(_claimed(self.rank), claim)
            said = self.store.get(key).decode()
            self.store.set(_heard(self.rank), "")
            if said.startswith(FAILED):
                raise RuntimeError(f"Rank 0 could not begin: {said.removeprefix(FAILED)}")
            return said.removeprefix(ANSWERED)
        try:
            answer = decide(self._claims())
        except BaseException as error:
            # What goes wrong here must not hide what went wrong before.
            with suppress(RuntimeError):
                self._tell(key, f"{FAILED}{type(error).__name__}: {error}", FAREWELL)
            raise
        self._tell(key, ANSWERED + answer, PATIENCE)
        os.environ[ANSWER_VARIABLE] = answer
        return answer

    def _claims(self) -> dict[int, str]:
        """What the other ranks say of themselves, once all have."""
        if self.store is None:
            return {}
        return {rank: self.store.get(_claimed(rank)).decode() for rank in range(1, self._world_size)}

    def _tell(self, key: str, answer: str, patience: timedelta) -> None:
        """Give the others the answer, and stay until all have it: the store they ask may end with this process."""
        if self.store is not None:
            self.store.set(key, answer)
            self.store.wait([_heard(rank) for rank in range(1, self._world_size)], patience)


def require_alike(first: Mapping[str, Any], other: Mapping[str, Any], rank: int) -> None:
    """Refuse ranks with other settings than the first one's: they would share weights, and train neither.

    Raises:
        ValueError: naming what differs.
    """
    # As it comes out of JSON, where a tuple is a list.
    ours, theirs = dict(leaves(json.loads(json.dumps(first)))), dict(leaves(other))
    clauses = [f"{name} is {there} there and {here} here" for name, (there, here) in differing(theirs, ours).items()]
    if clauses:
        raise ValueError(
            f"Rank {rank} is configured otherwise than rank 0: {'; '.join(clauses)}. Start every rank with the same "
            "command, on the same data and the same version."
        )


def _claimed(rank: int) -> str:
    return f"rank {rank} claims"


def _heard(rank: int) -> str:
    return f"rank {rank} has heard"


def _store() -> tuple[Store | None, int]:
    """What connects processes that were started side by side, and how many they are.

    None where there is one, or the first starts the rest.

    Raises:
        ValueError: somebody else has the port that they were to meet at.
    """
    if "MASTER_ADDR" in os.environ and "RANK" in os.environ:
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    elif SlurmTask.detect():
        slurm = SlurmTask()
        rank, world_size = slurm.global_rank(), slurm.world_size()
        # Lightning sets them to the same values when it connects the processes.
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = slurm.main_address, str(slurm.main_port)
    else:
        return None, 1
    if world_size == 1:
        return None, 1
    try:
        store, _, _ = next(rendezvous("env://", rank, world_size, timeout=PATIENCE))
    except DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise ValueError(
            f"Another process has port {os.environ['MASTER_PORT']} of this machine, by which the ranks were to meet; "
            "set MASTER_PORT to a free one, the same for all ranks."
        ) from None
    return PrefixStore("melisma", store), world_size
