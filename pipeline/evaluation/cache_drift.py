"""How far a rounded latent cache leads a decoder astray, step by step."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.router import Router, Routing


@dataclass(frozen=True)
class CacheDrift:
    """Decoding the same tokens over two caches, one number a step.

    Attributes:
        relative_error: L2 norm of the logits' difference, relative to that of the first's logits [T].
        divergence: Kullback-Leibler divergence of the second's distribution from the first's, in nats [T].
        agreement: whether both find the same token the most probable [T].
        rerouted: the share of routers that chose other experts over the second cache [T].
    """

    relative_error: Tensor
    divergence: Tensor
    agreement: Tensor
    rerouted: Tensor

    def summary(self, n_parts: int = 4) -> dict[str, float | list[float]]:
        """Means over the whole, and the error part by part: where rounding added up over time, it would grow."""
        return {
            "relative_error_mean": float(self.relative_error.mean()),
            "relative_error_median": float(self.relative_error.median()),
            "relative_error_max": float(self.relative_error.max()),
            "relative_error_by_part": [float(part.mean()) for part in self.relative_error.chunk(n_parts)],
            "divergence_mean_nats": float(self.divergence.mean()),
            "agreement": float(self.agreement.double().mean()),
            "rerouted": float(self.rerouted.mean()),
        }


@torch.inference_mode()
def measure_cache_drift(decoder: Decoder, tokens: Tensor, reference: LatentCache, other: LatentCache) -> CacheDrift:
    """Feed `tokens` [T] one by one over two empty caches of one row, and compare the logits after each."""
    steps = []
    with _recorded_choices(decoder) as choices:
        for token in tokens:
            choices.clear()
            expected, actual = (decoder.extend(token[None, None], cache)[0, 0].double() for cache in (reference, other))
            log_p, log_q = expected.log_softmax(dim=-1), actual.log_softmax(dim=-1)
            n_routers = len(choices) // 2
            rerouted = [a != b for a, b in zip(choices[:n_routers], choices[n_routers:], strict=True)]
            steps.append(
                (
                    float((actual - expected).norm() / expected.norm()),
                    float((log_p.exp() * (log_p - log_q)).sum()),
                    bool(actual.argmax() == expected.argmax()),
                    sum(rerouted) / max(n_routers, 1),
                )
            )
    return CacheDrift(*(torch.tensor(column) for column in zip(*steps, strict=True)))


@contextmanager
def _recorded_choices(decoder: Decoder) -> Iterator[list[frozenset[int]]]:
    """Within, the experts that each router chooses for one token are appended to the list that is yielded."""
    choices: list[frozenset[int]] = []

    def record(module: Router, inputs: Any, routing: Routing) -> None:
        choices.append(frozenset(routing.indices.flatten().tolist()))

    hooks = [router.register_forward_hook(record) for router in decoder.routers()]
    try:
        yield choices
    finally:
        for hook in hooks:
            hook.remove()
