"""The optimizer that a configuration names, over the parameters of a decoder."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lightning_modules.adamw import build_adamw
from lightning_modules.configuration import OptimizerConfig
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.router import Router
from lightning_modules.muon import Muon
from lightning_modules.precision.working_weights import WorkingWeights

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Parameters whose matrices hold an expert's gate projection above its up projection.
GATE_ABOVE_UP = "gate_up_proj"


def build_optimizer(
    decoder: Decoder, config: OptimizerConfig, working_weights: WorkingWeights | None = None
) -> torch.optim.Optimizer:
    """What steps the parameters of `decoder`, and their working weights if there are any."""
    settings = config.lr, config.betas, config.eps
    moments = TYPES[config.moments]
    if config.kind == "muon":
        return Muon(_muon_groups(decoder, config.weight_decay), *settings, moments, config.momentum, working_weights)
    return build_adamw(_groups(decoder.parameters(), config.weight_decay), *settings, moments, working_weights)


def _groups(parameters: Iterator[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices alone."""
    every = list(parameters)
    matrices, vectors = [p for p in every if p.ndim >= 2], [p for p in every if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _muon_groups(decoder: Decoder, weight_decay: float) -> list[dict[str, Any]]:
    """Hidden matrices to Muon; to AdamW vectors, and matrices whose rows mean something each by itself.

    Those are the embeddings and scores of tokens (arXiv 2502.16982, section 2.1), and of experts: routers.
    """
    by_row = {id(decoder.embed_tokens.weight), id(decoder.lm_head.weight)}
    by_row |= {id(p) for module in decoder.modules() if isinstance(module, Router) for p in module.parameters()}
    stacked: dict[int, list[Tensor]] = {1: [], 2: []}
    others: list[Tensor] = []
    for name, parameter in decoder.named_parameters():
        if parameter.ndim < 2 or id(parameter) in by_row:
            others.append(parameter)
        else:
            stacked[2 if name.endswith(GATE_ABOVE_UP) else 1].append(parameter)
    hidden = [{"params": parameters, "weight_decay": weight_decay, "n_stacked": n} for n, parameters in stacked.items()]
    return [group for group in hidden if group["params"]] + _groups(iter(others), weight_decay)
