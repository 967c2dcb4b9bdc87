import pytest
import torch
from threadpoolctl import threadpool_info

from pipeline.plumbing.threads import single_threaded


def fail_on_one_thread() -> None:
    with single_threaded():
        assert torch.get_num_threads() == 1
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
        raise KeyError


def test_there_is_one_thread_and_the_others_come_back_after_an_error() -> None:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError):
            fail_on_one_thread()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_threads)
