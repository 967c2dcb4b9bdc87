"""Where a GPU's time goes in a step: its kernels, by torch's profiler."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

N_PROFILED = 8
# What our kernels over the latent cache are called (lightning_modules/model/kernels).
OF_ATTENTION = ("attend", "_attend", "_merge")


@dataclass(frozen=True)
class KernelTimes:
    """Milliseconds and launches a step, by the name of a kernel."""

    milliseconds: Counter[str]
    launches: Counter[str]

    @property
    def attention_ms(self) -> float:
        """Of attention over the cache."""
        return sum(spent for name, spent in self.milliseconds.items() if name.startswith(OF_ATTENTION))

    def table(self, n_kernels: int = 40) -> str:
        """The longest kernels, a line each."""
        lines = [f"{'ms':>10}{'launches':>10}  kernel"]
        for name, spent in self.milliseconds.most_common(n_kernels):
            lines.append(f"{spent:>10.4f}{self.launches[name]:>10.1f}  {name[:120]}")
        lines.append(f"{self.milliseconds.total():>10.4f}{self.launches.total():>10.1f}  all")
        return "\n".join(lines) + "\n"


def kernel_times(step: Callable[[], object]) -> KernelTimes:
    """Of `N_PROFILED` more steps on a GPU."""
    with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(N_PROFILED):
            step()
        torch.cuda.synchronize()
    spent: Counter[str] = Counter()
    launches: Counter[str] = Counter()
    for event in profiler.events():
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation:
            spent[event.name] += event.device_time_total / 1000 / N_PROFILED
            launches[event.name] += 1 / N_PROFILED
    return KernelTimes(spent, launches)
