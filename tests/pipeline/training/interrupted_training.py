"""`python -m pipeline.train` as one rank of several, to which something happens."""

import os
import runpy
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemWriter

from lightning_modules.language_model import LanguageModel


def run(overrides: Sequence[str], environment: Mapping[str, str], output: Path, interruption: str) -> None:
    """Run the command in this process.

    Args:
        overrides: its arguments.
        environment: variables to set, as a launcher does.
        output: a file that what it prints is appended to.
        interruption: "save <step>": die in the middle of the save of that step; "<signal> <step>": get a signal in the
            middle of the step; "slow <seconds>": take so much longer over every step; empty: nothing happens.
    """
    os.environ |= environment
    torch.set_num_threads(1)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, sys.stdout.fileno())
    os.dup2(file, sys.stderr.fileno())
    if interruption:
        what, value = interruption.split()
        if what == "save":
            kill_in_save(int(value))
        elif what == "slow":
            slow_down(float(value))
        else:
            send_in_step(signal.Signals[what], int(value))
    sys.argv[1:] = overrides
    runpy.run_module("pipeline.train", run_name="__main__", alter_sys=True)


def send_in_step(number: signal.Signals, step: int) -> None:
    """Send this process a signal in the middle of a step, between its forward and its backward pass."""
    training_step = LanguageModel.training_step

    def interrupted(self: LanguageModel, *arguments: Any) -> Any:
        result = training_step(self, *arguments)
        if self.global_step == step:
            os.kill(os.getpid(), number)
        return result

    LanguageModel.training_step = interrupted  # type: ignore[method-assign]


def slow_down(seconds: float) -> None:
    """Pause in every micro-batch."""
    training_step = LanguageModel.training_step

    def slowed(self: LanguageModel, *arguments: Any) -> Any:
        time.sleep(seconds)
        return training_step(self, *arguments)

    LanguageModel.training_step = slowed  # type: ignore[method-assign]


def kill_in_save(step: int) -> None:
    """End this process in the middle of a save, when its shards are written, but not yet reported."""
    write_data = FileSystemWriter.write_data

    def interrupted(self: FileSystemWriter, *arguments: Any) -> Any:
        result = write_data(self, *arguments)
        if self.path.name == f"step-{step:08d}.partial":
            result.wait()
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    FileSystemWriter.write_data = interrupted  # type: ignore[method-assign]
