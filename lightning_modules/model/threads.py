"""How many threads torch computes with."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

# Multiplications that one thread is through with before a second one, woken for them, is of use.
WORTH_A_SECOND = 10**7


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: small operations gain little by a second, and wait for it wherever its core is taken."""
    given = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(given)


def threads_for(n_multiplications: int) -> AbstractContextManager[None]:
    """One thread for little work, and all that there are for more."""
    return one_thread() if n_multiplications < WORTH_A_SECOND else nullcontext()
