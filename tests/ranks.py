"""Runs a function on several ranks, connected by Gloo on this machine."""

import multiprocessing.connection
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing

TESTS = Path(__file__).parent


def run_on_ranks(function: Callable[..., None], n_ranks: int, *arguments: Any, timeout: float = 240.0) -> None:
    """Call `function(rank, *arguments)` on every rank, each in a new process, and wait for all.

    The environment of a rank is that of torchrun, but nothing is connected yet: Lightning does that, or
    `torch.distributed.init_process_group("gloo")`. The function has to be importable: of a module, not a closure.

    Raises:
        AssertionError: with the traceback of the first rank that failed, or that was not done in time; all are ended.
    """
    context = fork_server()
    errors = context.SimpleQueue()
    port = free_port()
    ranks = [
        context.Process(target=_enter, args=(function, rank, n_ranks, port, errors, arguments), daemon=True)
        for rank in range(n_ranks)
    ]
    for process in ranks:
        process.start()
    failure = _first_failure(ranks, timeout)
    for process in ranks:
        if process.is_alive():
            process.kill()
            process.join()
    if failure is not None:
        raise AssertionError(errors.get() if not errors.empty() else failure)


def fork_server() -> Any:
    """Starts processes that have imported what takes seconds already, and are otherwise fresh."""
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.training.train"])
    return context


def _first_failure(ranks: list[Any], timeout: float) -> str | None:
    """What went wrong first, or None once all have ended well."""
    waiting = dict(enumerate(ranks))
    while waiting:
        done = multiprocessing.connection.wait([process.sentinel for process in waiting.values()], timeout)
        if not done:
            return f"Ranks {sorted(waiting)} were not done after {timeout:.0f} s."
        for rank in [rank for rank, process in waiting.items() if process.sentinel in done]:
            process = waiting.pop(rank)
            process.join()
            if process.exitcode != 0:
                return f"Rank {rank} ended with code {process.exitcode}."
    return None


def _enter(
    function: Callable[..., None], rank: int, n_ranks: int, port: int, errors: Any, arguments: tuple[Any, ...]
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(n_ranks),
        "LOCAL_WORLD_SIZE": str(n_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "tests",
    }
    torch.set_num_threads(1)
    try:
        function(rank, *arguments)
    except BaseException:
        errors.put(f"Rank {rank}:\n{traceback.format_exc()}")
        sys.exit(1)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
