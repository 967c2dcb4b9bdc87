"""SwiGLU between two FP8 products whose width is no multiple of 128: computed by torch, and quantised behind it.

A tile of 128 columns then begins among the gates and ends among the up projections, which no kernel is made for.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.precision.kernels import blockwise
from lightning_modules.precision.kernels.layouts import BothLayouts, Plan
from lightning_modules.precision.scaling import Scaling


def swiglu(gate_up: Tensor, gates: Tensor, plan: Plan, scaling: Scaling) -> BothLayouts:
    """As `blockwise.swiglu`."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    return _quantised(F.silu(gate) * up * _weights(gates, plan), plan, scaling)


def swiglu_backward(
    gradient: Tensor, gate_up: Tensor, gates: Tensor, plan: Plan, scaling: Scaling
) -> tuple[BothLayouts, Tensor]:
    """As `blockwise.swiglu_backward`."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    share, outer = gate.sigmoid(), gradient.float()
    of_rows = (outer * gate * share * up).sum(dim=-1)
    outer = outer * _weights(gates, plan)
    of_gate_up = torch.cat((outer * up * share * (1 + gate * (1 - share)), outer * gate * share), dim=-1)
    return _quantised(of_gate_up, plan, scaling), blockwise.of_choices(of_rows, plan).view_as(gates)


def _weights(gates: Tensor, plan: Plan) -> Tensor:
    """What each row counts [P, 1]; rows that carry out no choice, anything."""
    return gates.flatten()[plan.choices.clamp_min(0)][:, None]


def _quantised(rows: Tensor, plan: Plan, scaling: Scaling) -> BothLayouts:
    """Rows that lie as planned already."""
    numbers = torch.arange(rows.shape[0], dtype=torch.int32, device=rows.device)
    in_place = plan._replace(choices=torch.where(plan.choices >= 0, numbers, -1))
    return blockwise.quantise_routed(rows, in_place, 1, scaling)
