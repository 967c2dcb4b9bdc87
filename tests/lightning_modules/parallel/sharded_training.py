"""A few steps of a tiny decoder with rounded weights, alone or as a rank of several."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.parallel.dispatch_choice import choose_dispatcher
from lightning_modules.parallel.mesh import build_mesh
from lightning_modules.parallel.sharding import parallelise
from lightning_modules.parallel.whole_experts import gather_experts_whole
from lightning_modules.precision.working_weights import WorkingWeights
from tests.conftest import TINY

CONFIG = replace(TINY, num_nextn_predict_layers=0)
N_RANKS, N_STEPS, LENGTH = 2, 3, 24


def train(
    layout: ParallelConfig | None,
    ranks: range,
    gathered_at_once: int = 0,
    config: DecoderConfig = CONFIG,
    gathers_whole: bool = False,
    reshards: bool = True,
) -> dict[str, Any]:
    """The first step's gradients, and each step's loss on the windows of `ranks`: a share of the mean over all."""

    def spread(decoder: Decoder) -> None:
        if layout is not None:
            mesh, policy = build_mesh(layout, "cpu", N_RANKS), MixedPrecisionPolicy()
            parallelise(decoder, mesh, policy, partial(choose_dispatcher, n_chosen=2), gathered_at_once, reshards)

    masters = Decoder(config)
    masters.initialize_weights(seed=3)
    spread(masters)
    working = WorkingWeights(masters, spread)
    if gathers_whole:
        gather_experts_whole(working.decoder, reshards, sums_once=True)
    # AdamW would divide what rounding leaves of a gradient near zero by its own size.
    optimizer = torch.optim.SGD(masters.parameters(), lr=0.02)
    losses, gradients = [], {}
    for step in range(N_STEPS):
        share = torch.zeros(())
        for rank in ranks:
            tokens = torch.arange(17 * rank, 17 * rank + LENGTH + 1).unsqueeze(0) % config.vocab_size
            logits = working.decoder(tokens[:, :-1]).logits
            share = share + F.cross_entropy(logits.flatten(0, 1).float(), tokens[0, 1:]) / N_RANKS
        share.backward()
        # In FP32, which torch's own optimizer asks for.
        working.hand_over_gradients(accumulates=True)
        if step == 0:
            gradients = {name: whole(p.grad) for name, p in masters.named_parameters() if p.grad is not None}
        optimizer.step()
        optimizer.zero_grad()
        working.refresh()
        losses.append(share.item())
    return {"gradients": gradients, "losses": losses}


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()
