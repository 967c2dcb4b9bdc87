import contextlib

import torch

from lightning_modules.model.threads import one_thread


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
