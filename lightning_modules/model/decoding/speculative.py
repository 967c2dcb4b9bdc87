"""Speculative decoding: the multi-token-prediction modules draft, the decoder verifies.

A round costs one pass of each module and one of the decoder, over as many tokens as there are modules and one more,
and yields from one token to that many. The tokens are those of `generate`: the very same when greedy, and of the same
distribution when sampled (Leviathan et al., arXiv 2211.17192, algorithm 1).

One row at a time: rows of a batch accept different numbers of tokens, so that all would wait for the slowest.
Speculation buys latency; where throughput counts, `generate` a batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.model.attention import cached_inputs
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.sampling import allow, token_probabilities
from lightning_modules.model.sampling_configuration import SamplingConfig


@dataclass
class Acceptance:
    """How many drafted tokens the decoder accepted, counted while tokens are generated."""

    n_rounds: int = 0
    n_drafted: int = 0
    n_accepted: int = 0

    @property
    def rate(self) -> float:
        """Accepted tokens per drafted one (0 when none was drafted)."""
        return self.n_accepted / self.n_drafted if self.n_drafted else 0.0

    @property
    def tokens_per_round(self) -> float:
        """Tokens that one pass of the decoder yields, on average; 1 without speculation."""
        return 1 + self.n_accepted / self.n_rounds if self.n_rounds else 1.0


@dataclass(frozen=True)
class TokenSource:
    """How tokens are drawn, by the decoder and by the modules alike: see `generate` for the fields."""

    sampling: SamplingConfig
    allowed: Tensor | None
    generator: torch.Generator | None

    def probabilities(self, logits: Tensor, first_index: int) -> Tensor:
        """Distributions [T, V] of the tokens at `first_index`, `first_index + 1`, …, from their logits [T, V]."""
        indices = torch.arange(first_index, first_index + len(logits), device=logits.device)
        return token_probabilities(allow(logits, self.allowed, indices), self.sampling)

    def draw(self, probabilities: Tensor) -> Tensor:
        """Draw a token [1] from one distribution [V]."""
        return torch.multinomial(probabilities, 1, generator=self.generator)


class Drafter:
    """The chain of multi-token-prediction modules, over a latent cache of its own.

    Module k stands at the decoder's positions, reads there what module k − 1 made of them and the token k further on,
    and drafts the token k + 1 further on. At the last positions module k reads drafts, which may be refused: the last
    `depth − 1` positions of a round are therefore computed again in the next.
    """

    def __init__(self, decoder: Decoder, capacity: int, source: TokenSource, device: torch.device, fp8: bool) -> None:
        self.decoder = decoder
        self.source = source
        self.depth = len(decoder.mtp)
        dtype = decoder.embed_tokens.weight.dtype
        self.cache = LatentCache(decoder.config, 1, capacity, dtype, device, fp8, n_layers=self.depth)
        self._unsettled = torch.zeros(1, 0, decoder.config.hidden_size, dtype=dtype, device=device)

    def draft(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Guess the next tokens.

        Args:
            tokens: [N] all tokens so far; the decoder has processed the first N − 1.
            hidden: [1, T, D] the decoder's hidden states at the last T of those, all that it has processed since the
                last draft.

        Returns:
            Drafted tokens [depth], and the distributions [depth, V] that they were drawn from.
        """
        hidden = torch.cat((self._unsettled, hidden), dim=1)
        self._unsettled = hidden[:, hidden.shape[1] - min(self.depth - 1, hidden.shape[1]) :]
        n_tokens, n_positions = len(tokens), hidden.shape[1]
        first = n_tokens - 1 - n_positions
        self.cache.truncate(first)
        inputs = cached_inputs(self.decoder.config, self.cache, n_positions)
        distributions = []
        for k in range(1, self.depth + 1):
            ahead = tokens[first + k : first + k + n_positions]
            hidden = self.decoder.extend_ahead(k, hidden, ahead[None], inputs, self.cache)
            logits = self.decoder.lm_head(hidden[0, -1:])
            distributions.append(self.source.probabilities(logits, n_tokens + k - 1))
            tokens = torch.cat((tokens, self.source.draw(distributions[-1][0])))
        self.cache.advance(n_positions)
        return tokens[n_tokens:], torch.cat(distributions)


def verify(drafted: Tensor, draft: Tensor, target: Tensor, source: TokenSource) -> Tensor:
    """Keep the drafted tokens that the decoder agrees with, and add one token of its own.

    A token x drawn from q is kept with probability min(1, p(x) / q(x)); at the first refusal one is drawn from
    max(0, p − q), normalised, instead, and after the last acceptance one from p. What comes out is distributed as p.

    Args:
        drafted: [D] tokens.
        draft: q, the distributions [D, V] that they were drawn from.
        target: p, the decoder's distributions [D + 1, V] at the same places and the one after.
        source: of randomness.

    Returns:
        Between 1 and D + 1 tokens.
    """
    chances = torch.rand(len(drafted), generator=source.generator, device=drafted.device)
    p = target[:-1].gather(1, drafted[:, None])[:, 0]
    q = draft.gather(1, drafted[:, None])[:, 0]
    n_accepted = int((chances * q < p).cumprod(dim=0).sum())
    remaining = target[n_accepted]
    if n_accepted < len(drafted):
        excess = (remaining - draft[n_accepted]).clamp_min(0)
        # p and q may differ by rounding alone: then nothing of p is in excess, and p itself is as good.
        remaining = excess if excess.any() else remaining
    return torch.cat((drafted[:n_accepted], source.draw(remaining)))


@torch.inference_mode()
def generate_speculatively(
    decoder: Decoder,
    prompt: Tensor,
    max_new_tokens: int,
    sampling: SamplingConfig,
    allowed: Tensor | None = None,
    end_token: int | None = None,
    generator: torch.Generator | None = None,
    acceptance: Acceptance | None = None,
    fp8_cache: bool = False,
) -> Iterator[Tensor]:
    """Yield new tokens [1] one at a time, as `generate` does, from fewer passes of the decoder.

    Greedy tokens equal those of `generate` as far as the logits do: verification adds up the same numbers in another
    order, so only where the two best logits differ by less than that rounding (about 1e-6 in FP32, 1e-2 in BF16) may
    another token be taken. Sampled tokens have the same distribution, but not the same draws from a seed.

    Args:
        decoder: the model with at least one multi-token-prediction module, in evaluation mode.
        prompt: [1, T] tokens to continue, the beginning-of-document token first.
        max_new_tokens: how many tokens to yield at most.
        sampling: how tokens are drawn.
        allowed: [Q, V] masks of the tokens legal at each of Q positions that come round in turn (see `generate`);
            drafts keep to them too.
        end_token: generation stops once it has been yielded.
        generator: source of randomness; must live on the prompt's device.
        acceptance: counts rounds, drafted and accepted tokens as generation goes on.
        fp8_cache: keep the latents in FP8.

    Raises:
        ValueError: when the decoder cannot draft, or the prompt is not one row of at least one token.
    """
    if not len(decoder.mtp):
        raise ValueError("Speculative decoding drafts with multi-token prediction; set model.num_nextn_predict_layers.")
    if prompt.ndim != 2 or prompt.shape[0] != 1 or not prompt.shape[1]:
        raise ValueError(f"Speculative decoding takes one prompt [1, T], not {list(prompt.shape)}; use `generate`.")
    if max_new_tokens < 1:
        return
    acceptance = Acceptance() if acceptance is None else acceptance
    source = TokenSource(sampling, allowed, generator)
    end_length = prompt.shape[1] + max_new_tokens
    capacity = end_length + len(decoder.mtp)
    dtype = decoder.embed_tokens.weight.dtype
    cache = LatentCache(decoder.config, 1, capacity, dtype, prompt.device, fp8_cache)
    drafter = Drafter(decoder, capacity, source, prompt.device, fp8_cache)
    tokens = prompt[0]
    hidden = decoder.extend_hidden(prompt, cache)
    new = source.draw(source.probabilities(decoder.lm_head(hidden[0, -1:]), len(tokens))[0])
    while True:
        for token in new[: end_length - len(tokens)].split(1):
            yield token
            if end_token is not None and token == end_token:
                return
        tokens = torch.cat((tokens, new))
        if len(tokens) >= end_length:
            return
        drafted, draft = drafter.draft(tokens, hidden)
        hidden = decoder.extend_hidden(torch.cat((tokens[-1:], drafted))[None], cache)
        new = verify(drafted, draft, source.probabilities(decoder.lm_head(hidden[0]), len(tokens)), source)
        hidden = hidden[:, : len(new)]
        cache.truncate(len(tokens) + len(new) - 1)
        acceptance.n_rounds += 1
        acceptance.n_drafted += len(drafted)
        acceptance.n_accepted += len(new) - 1
