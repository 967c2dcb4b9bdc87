"""What torch computes on a CPU in many passes over memory, in few: forward and backward written out.

The same numbers as torch's own operations up to rounding, which tests hold them against.
"""

import torch
from torch import Tensor


def applies_to(x: Tensor) -> bool:
    """Whether this package computes with `x`: a tensor on a CPU, in a type that may be summed in.

    Not in compiled code, which fuses by itself, nor under autocast, which rounds between operations. A tensor of
    another class only stands for one that lies elsewhere.
    """
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
    )
