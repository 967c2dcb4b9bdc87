"""How busy the other machines of a training are: each posts its samples where the first process finds them.

Only that process writes to the tracking store. The samples travel through the key-value store by which the processes
found each other: no collective waits for them, and a machine that is late holds up nobody.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed import Store

from pipeline.plumbing.rank import Node
from pipeline.tracking.repeating import Repeating
from pipeline.tracking.run import TrackedRun
from pipeline.tracking.system_metrics import INTERVAL, Monitors


@contextmanager
def other_nodes_metrics(
    store: Store | None, node: Node, rank: int, run: TrackedRun, interval: float = INTERVAL
) -> Iterator[None]:
    """Post or collect samples while the block runs: on the first process of every machine, and on that of the first.

    Args:
        store: that all processes share; None where they are on one machine.
        node: this process's machine.
        rank: of this process.
        run: which gets `system/node_1/…` and so on.
        interval: seconds between samples.
    """
    if store is None or node.n_nodes == 1 or (node.local_rank != 0 and rank != 0):
        yield
        return
    repeating = _collect(store, node, run, interval) if rank == 0 else _post(store, node, interval)
    try:
        yield
    finally:
        repeating.stop()


def _post(store: Store, node: Node, interval: float) -> Repeating:
    monitors = Monitors()
    return Repeating(
        "system metrics", interval, lambda: store.set(_key(node.number), json.dumps([time.time(), monitors.sample()]))
    )


def _collect(store: Store, node: Node, run: TrackedRun, interval: float) -> Repeating:
    began, seen = time.time(), dict.fromkeys(range(node.n_nodes), 0.0)

    def collect() -> None:
        for number in seen:
            if number == node.number or not store.check([_key(number)]):
                continue
            sampled, sample = json.loads(store.get(_key(number)))
            if sampled != seen[number]:
                seen[number] = sampled
                metrics = {f"system/node_{number}/{name}": value for name, value in sample.items()}
                run.log_metrics(metrics, int(time.time() - began))

    return Repeating("metrics of other nodes", interval, collect)


def _key(node: int) -> str:
    return f"system metrics of node {node}"
