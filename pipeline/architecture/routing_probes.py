"""How tokens find their experts, found out by routing some."""

import copy
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import torch
from torch import Tensor

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.experts import MixtureOfExperts
from lightning_modules.model.router import HierarchicalRouter, Router, Routing

N_TOKENS = 256
Measured = TypeVar("Measured")


def _of_mixture(probe: Callable[[MixtureOfExperts], Measured]) -> Callable[[Decoder], Measured | None]:
    """Let a probe of a mixture measure a decoder: its first one, with scores that differ; None where there is none."""

    @wraps(probe)
    def measure(decoder: Decoder) -> Measured | None:
        mixtures = [module for module in decoder.layers.modules() if isinstance(module, MixtureOfExperts)]
        if not mixtures:
            return None
        mixture = copy.deepcopy(mixtures[0])
        with torch.no_grad():
            mixture.gate.weight.normal_(std=0.25, generator=torch.Generator().manual_seed(0))
            return probe(mixture)

    return measure


@_of_mixture
def scoring(mixture: MixtureOfExperts) -> str:
    """The function that makes scores of logits."""
    tokens = _tokens(mixture.gate)
    logits, scores = tokens @ mixture.gate.weight.T, _route(mixture.gate, tokens).scores
    for name, function in (("sigmoid", torch.sigmoid), ("softmax", lambda x: x.softmax(dim=-1))):
        if torch.allclose(scores, function(logits), atol=1e-5):
            return name
    return "another"


@_of_mixture
def score_precision(mixture: MixtureOfExperts) -> str:
    """The type that scores are computed in where activations and weights are BF16."""
    router = copy.deepcopy(mixture.gate)
    router.weight.data = router.weight.data.bfloat16()
    return str(_route(router, _tokens(router).bfloat16()).scores.dtype).removeprefix("torch.")


@_of_mixture
def chosen_experts(mixture: MixtureOfExperts) -> int:
    """Different experts, or segments of experts, that a token goes to: of all tokens, the fewest."""
    indices = mixture.gate(_tokens(mixture.gate)).indices
    return min(len(set(row)) for row in indices.tolist())


@_of_mixture
def gate_sum(mixture: MixtureOfExperts) -> float | str:
    """What the gates of every token sum to, or that they do not sum to one number."""
    sums = _route(mixture.gate, _tokens(mixture.gate)).gates.sum(dim=-1)
    if float(sums.max() - sums.min()) > 1e-3 * float(sums.mean()):
        return "not normalised"
    return round(float(sums.mean()), 4)


@_of_mixture
def expert_groups(mixture: MixtureOfExperts) -> tuple[int, int] | None:
    """The fewest groups, and how many of them are kept, by which group-limited choice explains where tokens went.

    A group counts as the sum of its two best scores. None where no number of groups explains it.
    """
    routing = _route(mixture.gate, _tokens(mixture.gate))
    scores, chosen = routing.scores[:64], routing.indices[:64].sort(dim=-1).values
    n_experts, n_chosen = scores.shape[1], chosen.shape[1]
    for n_groups in range(1, n_experts + 1):
        if n_experts % n_groups:
            continue
        fewest = -(-n_chosen * n_groups // n_experts)
        kept_counts = range(fewest, n_groups) if n_groups > 1 else [1]
        for n_kept in kept_counts:
            if torch.equal(_group_limited_choice(scores, n_groups, n_kept, n_chosen), chosen):
                return n_groups, n_kept
    return None


@_of_mixture
def effect_of_bias(mixture: MixtureOfExperts) -> str:
    """What the routing bias moves: the choice alone, gates as well, or nothing."""
    router = copy.deepcopy(mixture.gate)
    tokens = _tokens(router)
    before = _route(router, tokens)
    router.e_score_correction_bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(2))
    after = _route(router, tokens)
    ratio = after.gates / before.scores.gather(1, after.indices)
    if float((ratio.max(dim=-1).values / ratio.min(dim=-1).values).max()) > 1 + 1e-4:
        return "choice and gates"
    if torch.equal(before.indices.sort(dim=-1).values, after.indices.sort(dim=-1).values):
        return "nothing"
    return "choice alone"


@_of_mixture
def dropped_tokens(mixture: MixtureOfExperts) -> int:
    """Of many tokens that all go to the same experts, how many get less than one of them alone would."""
    token = _tokens(mixture.gate)[:1]
    alone, _ = mixture(token[None])
    crowded, _ = mixture(token.expand(N_TOKENS, -1)[None])
    error = (crowded - alone).abs().amax(dim=-1)
    return int((error > 1e-3 * alone.abs().max()).sum())


def bias_update(decoder: Decoder, speed: float) -> str | None:
    """How one balancing step moves the biases of the busiest and of an idle expert."""

    @_of_mixture
    def update(mixture: MixtureOfExperts) -> str:
        router = copy.deepcopy(mixture.gate)
        router.e_score_correction_bias.zero_()
        load = torch.zeros_like(router.expert_loads)
        load[: max(len(load) // len(router.e_score_correction_bias), 1)] = 1000.0
        router.update_bias(load, speed)
        busy, idle = router.e_score_correction_bias[[0, -1]].tolist()
        return f"{busy:+.4g} busiest, {idle:+.4g} idle".replace("-", "−")

    return update(decoder)


def _route(router: Router, tokens: Tensor) -> Routing:
    """Route to experts; segments chosen within them are left aside."""
    return Router.forward(router, tokens) if isinstance(router, HierarchicalRouter) else router(tokens)


def _tokens(router: Router) -> Tensor:
    return torch.randn(N_TOKENS, router.weight.shape[1], generator=torch.Generator().manual_seed(1))


def _group_limited_choice(scores: Tensor, n_groups: int, n_kept: int, n_chosen: int) -> Tensor:
    """The experts [R, K], in order of number, that group-limited top-k takes by `scores` [R, E]."""
    grouped = scores.unflatten(1, (n_groups, -1))
    best_two = grouped.sort(dim=-1, descending=True).values[..., :2].sum(dim=-1)
    rank = best_two.argsort(dim=-1, descending=True).argsort(dim=-1)
    limited = grouped.where((rank < n_kept)[..., None], -torch.inf).flatten(1)
    return limited.argsort(dim=-1, descending=True)[:, :n_chosen].sort(dim=-1).values
