"""Kernels that begin before the one ahead of them has ended (CUDA's programmatic dependent launch).

A step of decoding is a chain of kernels of a few microseconds each. Every one of them lets the next begin at once,
reads what nobody writes (weights), and only then waits for the one before. As each waits, waiting is transitive: what a
kernel wrote can be read by all that follow, and be overwritten by the second after it.
"""

# Kernels are typed by what they are compiled for, and their compile-time constants are capitals.
# mypy: allow-untyped-defs
# ruff: noqa: N803

import torch
import triton
import triton.language as tl


def dependent_launch(device: torch.device) -> dict[str, bool]:
    """What a launch is given, the kernel's `DEPENDENT` among it: Hopper and later can, an interpreter cannot."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (9, 0):
        return {"DEPENDENT": False}
    return {"DEPENDENT": True, "launch_pdl": True}


@triton.jit
def launch_dependents(DEPENDENT: tl.constexpr):
    """Let the next kernel begin, once every program of this one has come here."""
    if DEPENDENT:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def wait_for_previous(DEPENDENT: tl.constexpr):
    """Go on when the kernel before has ended, and all that it wrote can be read."""
    if DEPENDENT:
        tl.extra.cuda.gdc_wait()
