from collections import Counter

import pytest
import torch

from benchmarks.decoding.kernels import KernelTimes, kernel_times


def test_the_table_begins_with_the_longest_and_ends_with_the_sum() -> None:
    times = KernelTimes(Counter({"_merge": 0.25, "gemm": 2.0, "_attend": 0.5}), Counter(dict.fromkeys(("gemm",), 3.0)))
    assert times.attention_ms == 0.75
    rows = [line.split() for line in times.table(n_kernels=2).splitlines()[1:]]
    assert rows == [["2.0000", "3.0", "gemm"], ["0.5000", "0.0", "_attend"], ["2.7500", "3.0", "all"]]


def test_kernels_of_attention_are_known_by_what_they_are_called() -> None:
    pytest.importorskip("triton")
    from lightning_modules.model.kernels.absorbed import hopper_bf16, hopper_fp8, merging, portable

    for kernel in (hopper_bf16.attend, hopper_fp8.attend, portable._attend, merging._merge):
        assert KernelTimes(Counter({kernel.__name__: 0.5, "_append": 1.0}), Counter()).attention_ms == 0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_kernels_of_a_step_are_timed() -> None:
    matrix = torch.randn(2048, 2048, device="cuda")
    times = kernel_times(lambda: matrix @ matrix)
    assert times.milliseconds.total() > 0.01
    assert times.launches.total() >= 1
