"""Which way tokens travel to their experts on this machine."""

import logging

import torch
from torch.distributed.device_mesh import DeviceMesh

from lightning_modules.model.dispatch import Dispatcher
from lightning_modules.parallel.all_to_all import all_to_all_dispatcher
from lightning_modules.parallel.deep_ep import DeepEPUnavailable, deep_ep_dispatcher
from lightning_modules.parallel.deep_ep_dispatcher import Quantiser

log = logging.getLogger(__name__)


def choose_dispatcher(
    n_experts: int,
    ep_mesh: DeviceMesh,
    kind: str = "auto",
    dtype: torch.dtype | None = torch.bfloat16,
    quantise: Quantiser | None = None,
) -> Dispatcher:
    """The dispatcher for one model, over `ep_mesh`; a local one where a single rank holds all experts.

    Args:
        n_experts: of all ranks together.
        ep_mesh: the ranks that hold them.
        kind: `all_to_all`; `auto` and `deep_ep` take DeepEP where it runs. Where it does not, one line of the log says
            why: a warning if it was asked for by name.
        dtype: of the tokens; None: FP32. DeepEP moves BF16 alone.
        quantise: rounds tokens to FP8 on their way through DeepEP; None: they travel in BF16.
    """
    if ep_mesh.size() == 1 or kind == "all_to_all":
        return all_to_all_dispatcher(n_experts, ep_mesh)
    try:
        if dtype != torch.bfloat16:
            raise DeepEPUnavailable(f"it moves BF16, and tokens are {dtype or torch.float32}")
        return deep_ep_dispatcher(n_experts, ep_mesh, quantise)
    except DeepEPUnavailable as reason:
        # Once for all ranks: they are alike.
        if ep_mesh.get_rank() == 0:
            level = logging.WARNING if kind == "deep_ep" else logging.INFO
            log.log(level, "DeepEP is not used: %s. Tokens travel by torch's all-to-all.", reason)
        return all_to_all_dispatcher(n_experts, ep_mesh)
