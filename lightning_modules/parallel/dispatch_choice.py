"""Which way tokens travel to their experts on this machine."""

import logging

import torch
from torch.distributed.device_mesh import DeviceMesh

from lightning_modules.model.dispatch import Dispatcher, LocalDispatcher
from lightning_modules.parallel.all_gather import AllGatherDispatcher
from lightning_modules.parallel.all_to_all import AllToAllDispatcher
from lightning_modules.parallel.configuration import gathers_tokens
from lightning_modules.parallel.deep_ep import DeepEPUnavailable, deep_ep_dispatcher
from lightning_modules.parallel.deep_ep_dispatcher import Quantiser

log = logging.getLogger(__name__)


def choose_dispatcher(
    n_experts: int,
    ep_mesh: DeviceMesh,
    n_chosen: int,
    kind: str = "auto",
    dtype: torch.dtype | None = torch.bfloat16,
    quantise: Quantiser | None = None,
) -> Dispatcher:
    """The dispatcher for one model, over `ep_mesh`; a local one where a single rank holds all experts.

    Args:
        n_experts: of all ranks together.
        ep_mesh: the ranks that hold them.
        n_chosen: experts a token.
        kind: one of DISPATCH_KINDS. `auto` gathers all tokens up to as many ranks as a token has experts, where that
            moves no more than an exchange of rows; beyond, as `deep_ep` does, it takes DeepEP where that runs. Where it
            does not, one line of the log says why: a warning if it was asked for by name.
        dtype: of the tokens; None: FP32. DeepEP moves BF16 alone.
        quantise: rounds tokens to FP8 on their way through DeepEP; None: they travel in BF16.
    """
    if ep_mesh.size() == 1:
        return LocalDispatcher(n_experts)
    group = ep_mesh.get_group()
    if gathers_tokens(kind, ep_mesh.size(), n_chosen):
        return AllGatherDispatcher(n_experts, group)
    if kind == "all_to_all":
        return AllToAllDispatcher(n_experts, group)
    try:
        if dtype != torch.bfloat16:
            raise DeepEPUnavailable(f"it moves BF16, and tokens are {dtype or torch.float32}")
        return deep_ep_dispatcher(n_experts, ep_mesh, quantise)
    except DeepEPUnavailable as reason:
        # Once for all ranks: they are alike.
        if ep_mesh.get_rank() == 0:
            level = logging.WARNING if kind == "deep_ep" else logging.INFO
            log.log(level, "DeepEP is not used: %s. Tokens travel by torch's all-to-all.", reason)
        return AllToAllDispatcher(n_experts, group)
