import time

import pytest
import torch

from benchmarks.clock import StepClock


def test_pauses_between_steps_count_nothing() -> None:
    clock = StepClock(torch.device("cpu"))
    for _ in range(2):
        clock.start()
        assert clock.is_running
        time.sleep(0.02)
        clock.stop()
        time.sleep(0.2)
    assert clock.n_steps == 2
    assert not clock.is_running
    assert min(clock.milliseconds()) >= 20
    assert min(clock.milliseconds()) < 200
    assert clock.first_step_seconds >= 0.02


def test_waiting_takes_no_processor_time() -> None:
    clock = StepClock(torch.device("cpu"))
    for wait in (0.0, 0.1):
        clock.start()
        time.sleep(wait)
        clock.stop()
    assert clock.cpu_milliseconds(first=1) < 50


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_on_a_gpu_lasts_as_long_as_its_kernels() -> None:
    clock = StepClock(torch.device("cuda"))
    matrix = torch.randn(4096, 4096, device="cuda")
    for _ in range(3):
        clock.start()
        for _ in range(50):
            matrix = matrix @ matrix / 100
        clock.stop()
    assert clock.milliseconds()[-1] > 5
