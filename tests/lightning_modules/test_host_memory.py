"""Freed memory is taken again without the kernel's help."""

import resource
import sys

import pytest
import torch

from lightning_modules.host_memory import keep_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's page faults are counted")
def test_tensors_of_a_second_step_fall_into_memory_of_the_first():
    keep_freed_memory()
    faults = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        tensors = [torch.ones(1 << 20) for _ in range(10)]
        del tensors
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert faults[2] < 40 * 1024 / 4 / 10  # of 40 MiB in pages of 4 KiB
