"""Ways of tokens to their experts, side by side on the ranks at hand: what each costs a layer, there and back twice.

    torchrun --nproc-per-node 2 -m benchmarks.dispatch [--kinds all_gather,all_to_all,deep_ep] [--tokens 8192]

Every rank has as many tokens; the experts a token chooses are drawn evenly, from half of the ranks' experts at most (as
a choice limited to groups does). Experts double their rows, so that only what moves tokens is timed: dispatch and
combine, forwards and backwards, eager. Prints one JSON line: for every kind the median milliseconds, how many of them
until the host goes on, and how far its sums lie from the first kind's, at worst; or why it does not run here.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from lightning_modules.model.dispatch import Dispatcher
from lightning_modules.parallel.all_gather import AllGatherDispatcher
from lightning_modules.parallel.all_to_all import AllToAllDispatcher
from lightning_modules.parallel.deep_ep import DeepEPUnavailable, deep_ep_dispatcher

KINDS: dict[str, Callable[[int, DeviceMesh], Dispatcher]] = {
    "all_gather": lambda n_experts, mesh: AllGatherDispatcher(n_experts, mesh.get_group()),
    "all_to_all": lambda n_experts, mesh: AllToAllDispatcher(n_experts, mesh.get_group()),
    "deep_ep": deep_ep_dispatcher,
}


def draw_choices(n_tokens: int, n_experts: int, n_chosen: int, device: torch.device) -> Tensor:
    """Experts [N, K] of every token: without repetition, from a half of them that is drawn for it in eight groups."""
    n_groups = min(8, n_experts)
    groups = torch.rand(n_tokens, n_groups, device=device).argsort(dim=1)[:, : max(1, n_groups // 2)]
    kept = torch.zeros(n_tokens, n_groups, device=device).scatter_(1, groups, 1.0)
    scores = torch.rand(n_tokens, n_experts, device=device) * kept.repeat_interleave(n_experts // n_groups, dim=1)
    return scores.topk(n_chosen, dim=1).indices


def there_and_back(dispatcher: Dispatcher, tokens: Tensor, gates: Tensor, indices: Tensor) -> Tensor:
    """Forwards and backwards once; returns the sums."""
    rows, row_gates, _, way_back = dispatcher.dispatch(dispatcher.plan(tokens, gates, indices))
    output = dispatcher.combine(rows * (2 * row_gates).to(rows.dtype).unsqueeze(-1), way_back)
    output.backward(tokens.detach())
    return output.detach()


def measure(dispatcher: Dispatcher, inputs: tuple[Tensor, Tensor, Tensor], steps: int) -> tuple[Tensor, dict[str, Any]]:
    """The sums, and how long they take."""
    times, host_times = [], []
    output = there_and_back(dispatcher, *inputs)
    for _ in range(steps):
        dist.barrier()
        wait_for(output.device)
        begin = time.perf_counter()
        output = there_and_back(dispatcher, *inputs)
        host_times.append(time.perf_counter() - begin)
        wait_for(output.device)
        times.append(time.perf_counter() - begin)
    ms, host_ms = (1000 * statistics.median(taken) for taken in (times, host_times))
    return output, {"ms": ms, "host_ms": host_ms}


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--chosen", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device(arguments.device, int(os.environ["LOCAL_RANK"]) if arguments.device == "cuda" else None)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    mesh = init_device_mesh(device.type, (world_size,))
    torch.manual_seed(rank)
    tokens = torch.randn(arguments.tokens, arguments.hidden, device=device).bfloat16().requires_grad_()
    gates = torch.rand(arguments.tokens, arguments.chosen, device=device).requires_grad_()
    indices = draw_choices(arguments.tokens, arguments.experts, arguments.chosen, device)
    results: dict[str, Any] = {}
    first = None
    for kind in arguments.kinds.split(","):
        try:
            dispatcher = KINDS[kind](arguments.experts, mesh)
        except DeepEPUnavailable as reason:
            results[kind] = {"unavailable": str(reason)}
            continue
        output, results[kind] = measure(dispatcher, (tokens, gates, indices), arguments.steps)
        first = output if first is None else first
        results[kind]["largest_difference"] = float((output.float() - first.float()).abs().max())
    if rank == 0:
        card = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        print(
            json.dumps(
                {"benchmark": "dispatch", **vars(arguments), "ranks": world_size, "card": card, "results": results}
            )
        )
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
