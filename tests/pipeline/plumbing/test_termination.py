import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.plumbing.termination import ended_as_interrupted


def be_terminated() -> None:
    with ended_as_interrupted():
        os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_is_an_interruption_within_and_what_it_was_after() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        be_terminated()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_thread_that_gets_no_signals_is_left_alone() -> None:
    def enter() -> bool:
        with ended_as_interrupted():
            return True

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(enter).result()
