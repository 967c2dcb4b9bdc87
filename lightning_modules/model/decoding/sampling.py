"""Choice of the next token from its logits."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from lightning_modules.model.sampling_configuration import SamplingConfig


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


def sample(logits: Tensor, config: SamplingConfig, chances: Tensor) -> Tensor:
    """Draw a token from each of `logits` [..., V], by `chances` [...] from 0 to below 1; returns [...]."""
    if config.temperature == 0:
        return logits.argmax(dim=-1)
    return draw(token_probabilities(logits, config), chances)


def draw(weights: Tensor, chances: Tensor) -> Tensor:
    """Draw a token from each of the distributions `weights` [..., V], which may add up to anything above 0.

    Token v is drawn where the chance [...] lies between the shares of all tokens before v, and those and its own.
    """
    sums = weights.cumsum(dim=-1)
    reached = (sums > chances[..., None] * sums[..., -1:]) & (weights > 0)
    return reached.byte().argmax(dim=-1)


def token_probabilities(logits: Tensor, config: SamplingConfig) -> Tensor:
    """The distributions [..., V] that tokens with `logits` [..., V] are drawn from."""
    if config.temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()
    if logits.is_cuda:
        from lightning_modules.model.kernels import next_token

        if logits.shape[-1] <= next_token.LARGEST_VOCABULARY:
            return next_token.probabilities(logits, config)
    # Less the greatest first: however low the temperature, nothing overflows.
    logits = logits.float()
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / config.temperature
    if config.top_k is not None and config.top_k < logits.shape[-1]:
        threshold = logits.topk(config.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < threshold, float("-inf"))
    probabilities = logits.softmax(dim=-1)
    if config.top_p is not None and config.top_p < 1:
        ranked = probabilities.sort(dim=-1, descending=True).values
        # A token stays when those before it have not yet reached top_p: the most probable one always does.
        is_beyond = ranked.cumsum(dim=-1) - ranked >= config.top_p
        threshold = ranked.masked_fill(is_beyond, float("inf")).amin(dim=-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < threshold, 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return probabilities


@dataclass(frozen=True)
class TokenSource:
    """How tokens are drawn, and which of them ends a row: see `generate` for the fields."""

    sampling: SamplingConfig
    allowed: Tensor | None = None
    end_token: int | None = None

    def draw(self, logits: Tensor, places: Tensor, chances: Tensor) -> Tensor:
        """Draw the tokens at `places` [B] of rows, from their logits [B, V], by chances [B]; returns [B]."""
        return sample(allow(logits, self.allowed, places), self.sampling, chances)
