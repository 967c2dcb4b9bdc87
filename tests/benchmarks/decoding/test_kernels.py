from collections import Counter

import pytest
import torch

from benchmarks.decoding.kernels import KernelTimes, kernel_times


def test_the_table_begins_with_the_longest_and_ends_with_the_sum() -> None:
    times = KernelTimes(Counter({"_merge": 0.25, "gemm": 2.0, "_attend": 0.5}), Counter(dict.fromkeys(("gemm",), 3.0)))
    assert times.attention_ms == 0.75
    rows = [line.split() for line in times.table(n_kernels=2).splitlines()[1:]]
    assert rows == [["2.0000", "3.0", "gemm"], ["0.5000", "0.0", "_attend"], ["2.7500", "3.0", "all"]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_kernels_of_a_step_are_timed() -> None:
    matrix = torch.randn(2048, 2048, device="cuda")
    times = kernel_times(lambda: matrix @ matrix)
    assert times.milliseconds.total() > 0.01
    assert times.launches.total() >= 1
