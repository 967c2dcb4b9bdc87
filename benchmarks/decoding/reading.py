"""What a step has to read at least: every weight that it multiplies with, and the whole cache, once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.decoding.workload import DecodingWorkload
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.counting import component_parameters
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.router import Routing


@dataclass(frozen=True)
class Reading:
    """Bytes that a step reads at least, and the share of a layer's experts whose weights are among them."""

    weights: float
    cache: float
    share_of_experts: float

    @property
    def total(self) -> float:
        return self.weights + self.cache


@torch.inference_mode()
def step_reading(decoder: Decoder, workload: DecodingWorkload, said: Tensor) -> Reading:
    """Of a step in the middle of all steps.

    Args:
        decoder: the model.
        workload: the rows.
        said: tokens [B, n] of the steps, whose experts are counted as they are chosen behind the rows' own tokens.
    """
    tokens = torch.cat((workload.own_tokens().to(said.device), said), dim=1)
    _, routings = decoder.next_token_logits(tokens)
    share = _chosen_share(routings, workload.batch, said.shape[1], decoder.config.n_routed_segments)
    read = {"embedding": 0.0, "routed_experts": share}
    weights = sum(
        parameter.nbytes * read.get(component, 1.0) for component, _, parameter in component_parameters(decoder)
    )
    cache = LatentCache(workload.decoder, 1, 1, workload.dtype, "meta", workload.fp8_cache)
    length = workload.context + workload.n_steps / 2
    return Reading(weights, cache.bytes_per_token * workload.batch * length, share)


def _chosen_share(routings: Sequence[Routing], batch: int, n_places: int, n_experts: int) -> float:
    """Experts that any of `batch` rows chooses at one place, of all, on average over layers and the last places."""
    shares = []
    for routing in routings:
        by_place = routing.indices.unflatten(0, (batch, -1))[:, -n_places:].transpose(0, 1).flatten(1)
        chosen = torch.zeros(len(by_place), n_experts, device=by_place.device).scatter_(1, by_place, 1)
        shares.append(float(chosen.mean()))
    return sum(shares) / len(shares) if shares else 0.0
