"""What compiled code steps out of the graph for."""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.compiler.disable
def grouped_mm(rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """`grouped_linear` in a type that torch's compiler cannot multiply groups in: it only knows BF16."""
    return F.grouped_mm(rows, weight.mT, offs=offsets)
