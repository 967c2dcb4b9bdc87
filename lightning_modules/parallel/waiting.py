"""How long this process waits for other ranks."""

import sys
import threading
import time
from types import FrameType

import torch
from torch.distributed import _functional_collectives, distributed_c10d

# Seconds from one look to the next.
INTERVAL = 0.02
# Where torch waits for other ranks, whoever asked it to, and for a GPU that may wait for them.
PLACES = frozenset(module.__file__ for module in (distributed_c10d, _functional_collectives, torch.cuda.streams))


class WaitingTime:
    """Seconds that the thread which makes this has stood in exchanges between ranks, from `start` to `stop`.

    They are begun in many places, most of them torch's and Lightning's. So another thread looks where this one is, and
    takes it to have been there since it looked last; the one that trains does nothing for it.

    Gloo's exchanges are waited for where they are begun, NCCL's on the GPU: with NCCL what is left of a step is what
    the host had to do, and what the GPU had to do is not seen.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._watched = threading.get_ident()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, name="waiting time", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def _look(self) -> None:
        before = time.perf_counter()
        while not self._stopped.wait(INTERVAL):
            now = time.perf_counter()
            if waits(sys._current_frames().get(self._watched)):
                self.seconds += now - before
            before = now


def waits(frame: FrameType | None) -> bool:
    """Whether a thread that is in this frame waits for others."""
    return frame is not None and frame.f_code.co_filename in PLACES
