"""Choice of the next token from its logits."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class SamplingConfig:
    """How tokens are drawn. A temperature of 0 takes the most probable one.

    `top_k` keeps that many most probable tokens, and any that tie with the last of them; `top_p` the fewest that
    together reach this probability.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}; it must not be negative (0 is greedy).")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; it must be at least 1, or null to keep all tokens.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must lie above 0 and up to 1, or be null.")


def allow(logits: Tensor, allowed: Tensor | None, indices: Tensor) -> Tensor:
    """Rule out tokens that are not legal at their place.

    Args:
        logits: [..., V].
        allowed: [Q, V] masks of the tokens legal at each of Q positions that come round in turn, counted from the
            token after the first of a row; None allows all.
        indices: where in their rows the tokens to be drawn will stand [...], the first token of a row at 0.
    """
    if allowed is None:
        return logits
    return logits.masked_fill(~allowed[(indices - 1) % allowed.shape[0]], float("-inf"))


def sample(logits: Tensor, config: SamplingConfig, generator: torch.Generator | None = None) -> Tensor:
    """Draw one token a row from `logits` [B, V]; returns [B]."""
    if config.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = token_probabilities(logits, config)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


def token_probabilities(logits: Tensor, config: SamplingConfig) -> Tensor:
    """The distribution [B, V] that `sample` draws from."""
    if config.temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()
    # Less the greatest first: however low the temperature, nothing overflows.
    logits = logits.float()
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / config.temperature
    if config.top_k is not None and config.top_k < logits.shape[-1]:
        threshold = logits.topk(config.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, float("-inf"))
    probabilities = logits.softmax(dim=-1)
    if config.top_p is not None and config.top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True)
        # A token stays when those before it have not yet reached top_p: the most probable one always does.
        dropped = ranked.cumsum(dim=-1) - ranked >= config.top_p
        ranked = ranked.masked_fill(dropped, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ranked)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return probabilities
