import contextlib

import torch

from lightning_modules.model.threads import WORTH_A_SECOND, one_thread, threads_for


def test_torch_gets_its_threads_back_whatever_happens() -> None:
    given = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with contextlib.suppress(ValueError), one_thread():
            inside = torch.get_num_threads()
            raise ValueError
        assert (inside, torch.get_num_threads()) == (1, 2)
    finally:
        torch.set_num_threads(given)


def test_little_work_is_done_on_one_thread() -> None:
    given = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threads_for(WORTH_A_SECOND - 1):
            little = torch.get_num_threads()
        with threads_for(WORTH_A_SECOND):
            assert (little, torch.get_num_threads()) == (1, 2)
    finally:
        torch.set_num_threads(given)
