"""Where a step's milliseconds go, by part, against the floor of each."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch.profilers import Profiler
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, record_function

from benchmarks.rates import Rates
from benchmarks.training.costs import (
    ATTENTION,
    COMMUNICATION,
    ELEMENTWISE,
    GRADIENT_NORM,
    GROUPED_PRODUCTS,
    OPTIMIZER,
    OTHER_PRODUCTS,
    PARTS,
    PERMUTATION,
    QUANTISATION,
    Cost,
)

# What a GPU does between kernels, and what a CPU does outside of torch's operations.
GAPS, HOST = "gaps", "host"
# Of kernels on a GPU and operations on a CPU, whichever matches first; the rest is elementwise.
PATTERNS = {
    ATTENTION: r"sdpa|flash|fmha|attention|attend|flex|compute_dot_do_o|convert_dq",
    COMMUNICATION: r"nccl|c10d|DeepEP|deep_ep",
    QUANTISATION: r"quantise",
    GROUPED_PRODUCTS: r"enable_3x_kernel_for_sm9x|GroupProblem|grouped_mm|multiply_rows|multiply_tokens",
    OPTIMIZER: r"^step$|adam",
    GRADIENT_NORM: r"sum_of_squares",
    PERMUTATION: r"^_spread|^_sum|_choose|sort|topk|index|gather|scatter|histogram|bincount",
    OTHER_PRODUCTS: r"nvjet|gemm|cutlass|xmma|aten::(mm|addmm|bmm|linear|matmul)$",
}
# Operations of a CPU within these, whatever they are; the innermost counts.
ENCLOSING = {
    ATTENTION: r"attend_stretches",
    GROUPED_PRODUCTS: r"grouped_mm|WeightedExperts",
    GRADIENT_NORM: r"configure_gradient_clipping",
    OPTIMIZER: r"^Optimizer\.step",
}
# The optimizer's step encloses Lightning's closure, whose parts are told by their own names.
CLOSURE = r"\]\w+\.(training_step|backward)$"
N_KERNELS = 40


class StepLabels(Profiler):
    """Lets torch's profiler know which of Lightning's actions is under way."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[str, record_function] = {}

    def start(self, action_name: str) -> None:
        """Begin a label."""
        self._open[action_name] = record_function(action_name)
        self._open[action_name].__enter__()

    def stop(self, action_name: str) -> None:
        """End it."""
        if (label := self._open.pop(action_name, None)) is not None:
            label.__exit__(None, None, None)


class StepProfile:
    """A few steps under torch's profiler.

    Args:
        device: what they run on.
        n_steps: how many.
    """

    def __init__(self, device: torch.device, n_steps: int = 3) -> None:
        self.n_steps = n_steps
        self.on_gpu = device.type == "cuda"
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if self.on_gpu else [])
        self._profiler = torch.profiler.profile(activities=activities)

    def start(self) -> None:
        """Begin."""
        self._profiler.start()

    def stop(self) -> None:
        """End, once the device has done all."""
        if self.on_gpu:
            torch.cuda.synchronize()
        self._profiler.stop()

    def table(self, costs: Mapping[str, Cost], rates: Rates, step_ms: float, cpu_ms: float) -> str:
        """Milliseconds by part beside their floors, and the longest kernels or operations.

        Args:
            costs: of the parts of a step.
            rates: of the device.
            step_ms: of a step that is not profiled.
            cpu_ms: of processor time that such a step takes.
        """
        spent: Counter[str] = Counter()
        kernels: Counter[tuple[str, str]] = Counter()
        launches: Counter[tuple[str, str]] = Counter()
        for part, name, milliseconds in self._timed():
            spent[part] += milliseconds / self.n_steps
            kernels[part, name] += milliseconds / self.n_steps
            launches[part, name] += 1
        rest = {GAPS: step_ms - self._busy()} if self.on_gpu else {HOST: step_ms - spent.total()}
        lines = [f"{'part':<18}{'ms':>10}{'floor':>10}{'share':>8}"]
        for part, milliseconds in [*((part, spent[part]) for part in PARTS), *rest.items()]:
            floor = costs[part].milliseconds(rates) if part in costs else 0.0
            lines.append(f"{part:<18}{milliseconds:>10.3f}{floor:>10.3f}{milliseconds / step_ms:>8.1%}")
        total = sum(cost.milliseconds(rates) for cost in costs.values())
        lines.append(f"{'step':<18}{step_ms:>10.3f}{total:>10.3f}")
        lines.append(f"{'processor time':<18}{cpu_ms:>10.3f}")
        lines.append(
            f"floors by {rates.flops_per_second / 1e12:.3g} TFLOP/s and {rates.bytes_per_second / 1e12:.3g} TB/s, "
            "as a large product and a large copy reach here"
        )
        lines.append(f"{'ms':>10}{'launches':>10}  kernel" if self.on_gpu else f"{'ms':>10}{'calls':>10}  operation")
        for (part, name), milliseconds in kernels.most_common(N_KERNELS):
            n_launches = launches[part, name] / self.n_steps
            lines.append(f"{milliseconds:>10.3f}{n_launches:>10.1f}  [{part}] {name[:140]}")
        return "\n".join(lines) + "\n"

    def _timed(self) -> Iterable[tuple[str, str, float]]:
        """(part, name, milliseconds) of every kernel, or of every operation of a CPU without those that it calls."""
        for event in self._profiler.events():
            if _is_kernel(event):
                yield part_of(event.name), event.name, event.time_range.elapsed_us() / 1000
            elif not self.on_gpu and event.name.startswith(("aten::", "melisma::")):
                yield _enclosing_part(event) or part_of(event.name), event.name, event.self_cpu_time_total / 1000

    def _busy(self) -> float:
        """Milliseconds a step in which the GPU runs a kernel, or several at once."""
        spans = sorted((e.time_range.start, e.time_range.end) for e in self._profiler.events() if _is_kernel(e))
        busy, end = 0.0, float("-inf")
        for begins, ends in spans:
            busy += max(0.0, ends - max(begins, end))
            end = max(end, ends)
        return busy / 1000 / self.n_steps


def part_of(name: str) -> str:
    """The part that a kernel or an operation belongs to."""
    return next((part for part, pattern in PATTERNS.items() if re.search(pattern, name)), ELEMENTWISE)


def _is_kernel(event: Any) -> bool:
    return event.device_type == DeviceType.CUDA and not event.is_user_annotation


def _enclosing_part(event: Any) -> str | None:
    """The part of what an operation runs within; None: its own name tells."""
    while event is not None and not re.search(CLOSURE, event.name):
        for part, pattern in ENCLOSING.items():
            if re.search(pattern, event.name):
                return part
        event = event.cpu_parent
    return None
