"""Choice of experts: scores, group-limited top-k, a persistent bias for balance.

Suffixes: R routed rows (tokens), E experts, K chosen experts a token, G groups; S segments an expert, of which M are
chosen. Independent segments are experts to the router: E and K then count segments.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.dispatch import count_rows
from lightning_modules.model.exact_product import exact_linear
from lightning_modules.model.sharded import whole

# The decay of `expert_loads`: an average over about the last hundred optimizer steps.
EXPERT_LOADS_DECAY = 0.99


class Routing(NamedTuple):
    """Where one layer sent its tokens: chosen experts and gate weights [R, K], all scores [R, E] in FP32.

    `are_real` [R] tells tokens from padding, which no load and no balance loss counts; None: all are tokens.
    """

    indices: Tensor
    gates: Tensor
    scores: Tensor
    are_real: Tensor | None = None

    def load(self) -> Tensor:
        """How many tokens each expert received [E], as FP32 counts."""
        counted = None if self.are_real is None else self.are_real[:, None].expand_as(self.indices)
        return count_rows(self.indices, self.scores.shape[1], counted).float()


class Router(nn.Module):
    """Scores every expert for every token and chooses the best (arXiv 2412.19437, section 2.1.2).

    `e_score_correction_bias` moves the choice alone: gate weights come from the unbiased scores. It changes once an
    optimizer step, by `update_bias`, and never through a gradient. `expert_loads` is a running mean of each expert's
    share of the tokens (uniform: 1 / E). Both are saved with the weights.

    Independent segments of experts are scored, chosen and balanced one by one, and a group holds all segments of its
    experts.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        n_experts, n_chosen = config.n_routed_segments, config.num_segments_per_tok
        if config.routes_hierarchically:
            n_experts, n_chosen = config.n_routed_experts, config.num_experts_per_tok
        self.n_groups = config.n_group
        self.n_groups_kept = config.topk_group
        self.n_chosen = n_chosen
        self.scoring_func = config.scoring_func
        self.normalises_gates = config.norm_topk_prob
        self.scaling_factor = config.routed_scaling_factor
        self.weight = nn.Parameter(torch.empty(n_experts, config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(n_experts, dtype=torch.float32))
        self.register_buffer("expert_loads", torch.full((n_experts,), 1 / n_experts, dtype=torch.float32))
        self.e_score_correction_bias: Tensor
        self.expert_loads: Tensor

    def forward(self, hidden: Tensor) -> Routing:
        """Route tokens `hidden` [R, D]. Scores are FP32 even under autocast: a rounded score changes the choice."""
        with torch.autocast(hidden.device.type, enabled=False):
            logits = self.logits(hidden)
        return self.route(logits)

    def route(self, logits: Tensor) -> Routing:
        """Route tokens by their experts' `logits` [R, E] in FP32."""
        scores = self._score(logits)
        indices = self._choose(scores.detach() + self.e_score_correction_bias)
        gates = scores.gather(1, indices)
        if self.normalises_gates:
            gates = gates / (gates.sum(dim=-1, keepdim=True) + 1e-20)
        return Routing(indices, gates * self.scaling_factor, scores)

    def logits(self, hidden: Tensor) -> Tensor:
        """FP32 [R, E] of tokens [R, D], exact where these are BF16."""
        weight = whole(self.weight)
        if hidden.is_cuda and hidden.dtype == torch.bfloat16 and weight.dtype == torch.float32:
            return exact_linear(hidden, weight)
        return F.linear(hidden.float(), weight.float())

    def _score(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.scoring_func == "sigmoid" else logits.softmax(dim=-1)

    def _choose(self, biased_scores: Tensor) -> Tensor:
        """The best K experts [R, K] among those of the best groups; a group counts as the sum of its two best."""
        if biased_scores.is_cuda:
            return _choose_on_gpu(biased_scores, self.n_chosen, self.n_groups, self.n_groups_kept)
        if self.n_groups > 1:
            grouped = biased_scores.unflatten(1, (self.n_groups, -1))
            group_scores = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(dim=-1)
            kept = group_scores.topk(self.n_groups_kept, dim=-1, sorted=False).indices
            dropped = torch.ones_like(group_scores, dtype=torch.bool).scatter_(1, kept, False)
            biased_scores = grouped.masked_fill(dropped[:, :, None], float("-inf")).flatten(1)
        return biased_scores.topk(self.n_chosen, dim=-1, sorted=False).indices

    @torch.no_grad()
    def update_bias(self, load: Tensor, speed: float) -> None:
        """One step of auxiliary-loss-free balancing: b += γ · sign(mean load − load).

        Args:
            load: tokens each expert received over the whole optimizer step [E], all micro-batches and ranks summed.
            speed: γ, the size of the step.
        """
        self._move_bias(load, speed)
        share = load / load.sum().clamp_min(1)
        self.expert_loads.lerp_(share, 1 - EXPERT_LOADS_DECAY)

    def _move_bias(self, load: Tensor, speed: float) -> None:
        self.e_score_correction_bias += speed * torch.sign(load.mean() - load)

    @torch.no_grad()
    def reset_balance(self) -> None:
        """Forget all balancing: no bias, and equal loads."""
        self.e_score_correction_bias.zero_()
        self.expert_loads.fill_(1 / self.expert_loads.numel())


@torch.no_grad()
def update_biases(routers: list[Router], loads: Tensor, speed: float) -> None:
    """`Router.update_bias` of every layer, from `loads` [layers, E], in a few operations over all of them."""
    if any(isinstance(router, HierarchicalRouter) for router in routers):
        for router, load in zip(routers, loads, strict=True):
            router.update_bias(load, speed)
        return
    steps = speed * torch.sign(loads.mean(dim=1, keepdim=True) - loads)
    torch._foreach_add_([router.e_score_correction_bias for router in routers], list(steps))
    shares = loads / loads.sum(dim=1, keepdim=True).clamp_min(1)
    torch._foreach_lerp_([router.expert_loads for router in routers], list(shares), 1 - EXPERT_LOADS_DECAY)


class HierarchicalRouter(Router):
    """Chooses experts as `Router` does, and then the best segments within each of them.

    A segment's gate is its expert's, times the segment's score over the mean score of those chosen beside it: an expert
    all of whose segments are chosen with equal scores computes what it would unsplit. What it returns counts in
    segments: numbers e · S + s, gates and indices [R, K · M]; scores [R, E · S] share each expert's score among its
    segments. Segments are balanced within their experts by `segment_bias`, as experts are by theirs.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        n_segments = config.n_routed_segments
        self.n_segments = config.num_expert_segments
        self.n_segments_chosen = config.num_segments_per_expert or config.num_expert_segments
        self.segment_gate = nn.Linear(config.hidden_size, n_segments, bias=False)
        self.register_buffer("segment_bias", torch.zeros(n_segments, dtype=torch.float32))
        self.register_buffer("expert_loads", torch.full((n_segments,), 1 / n_segments, dtype=torch.float32))
        self.segment_bias: Tensor

    def forward(self, hidden: Tensor) -> Routing:
        """Route tokens `hidden` [R, D] to segments, with FP32 scores."""
        experts = super().forward(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            logits = F.linear(hidden.float(), whole(self.segment_gate.weight).float())
        scores_RES = self._score(logits.unflatten(1, (-1, self.n_segments)))  # noqa: N806
        of_experts = experts.indices[:, :, None].expand(-1, -1, self.n_segments)
        scores_RKS = scores_RES.gather(1, of_experts)  # noqa: N806
        bias = self.segment_bias.unflatten(0, (-1, self.n_segments))[experts.indices]
        chosen = (scores_RKS.detach() + bias).topk(self.n_segments_chosen, dim=-1, sorted=False).indices
        weights = scores_RKS.gather(2, chosen)
        weights = weights / (weights.mean(dim=-1, keepdim=True) + 1e-20)
        shares = scores_RES / scores_RES.sum(dim=-1, keepdim=True)
        return Routing(
            indices=(experts.indices[:, :, None] * self.n_segments + chosen).flatten(1),
            gates=(experts.gates[:, :, None] * weights).flatten(1),
            scores=(experts.scores[:, :, None] * shares).flatten(1),
        )

    def _move_bias(self, load: Tensor, speed: float) -> None:
        by_expert = load.unflatten(0, (-1, self.n_segments))
        super()._move_bias(by_expert.sum(dim=1), speed)
        self.segment_bias += speed * torch.sign(by_expert.mean(dim=1, keepdim=True) - by_expert).flatten()

    @torch.no_grad()
    def reset_balance(self) -> None:
        """Forget all balancing: no biases, and equal loads."""
        super().reset_balance()
        self.segment_bias.zero_()


def joined(routings: list[Routing]) -> Routing:
    """The routings of several layers one after the other, as that of one with more tokens."""
    indices, gates, scores, masks = zip(*routings, strict=True)
    are_real = None if masks[0] is None else torch.cat(masks)
    return Routing(torch.cat(indices), torch.cat(gates), torch.cat(scores), are_real)


def _choose_on_gpu(scores: Tensor, n_chosen: int, n_groups: int = 1, n_groups_kept: int = 1) -> Tensor:
    from lightning_modules.model.kernels.expert_choice import choose_experts

    return choose_experts(scores, n_groups, n_groups_kept, n_chosen)


def expert_loads(routings: list[Routing]) -> Tensor:
    """How many tokens each expert of every layer received [layers, E], as FP32 counts."""
    n_layers, n_experts = len(routings), routings[0].scores.shape[1]
    indices = torch.stack([routing.indices + layer * n_experts for layer, routing in enumerate(routings)])
    masks = [routing.are_real for routing in routings if routing.are_real is not None]
    counted = torch.stack(masks)[:, :, None].expand_as(indices) if masks else None
    return count_rows(indices, n_layers * n_experts, counted).float().view(n_layers, n_experts)


def sequence_balance_loss(
    routing: Routing, n_sequences: int, add_up: Callable[[Tensor], Tensor] = Tensor.detach
) -> Tensor:
    """The complementary sequence-wise balance loss, without its weight α (arXiv 2412.19437, equations 17 to 20).

    For every sequence, Σ_i f_i · P_i: f_i is expert i's share of the K best scores, scaled so that balance gives 1; P_i
    its mean normalised score. Balanced scores give 1, all tokens best on K experts about E / K. The mean over sequences
    is returned.

    Equation 18 counts the best of the scores themselves, where equation 16 chooses by scores and bias: the loss levels
    what the router says of its own, so that the bias has less to correct.

    Where ranks have parts of the sequences, `add_up` sums numbers over them, and this rank's part of the loss is
    returned.
    """
    n_experts, n_chosen = routing.scores.shape[1], routing.indices.shape[1]
    scores = routing.scores.detach()
    best = _choose_on_gpu(scores, n_chosen) if scores.is_cuda else scores.topk(n_chosen, dim=-1, sorted=False).indices
    is_best = torch.zeros_like(routing.scores).scatter_(1, best, 1.0)
    normalised = routing.scores / routing.scores.sum(dim=-1, keepdim=True)
    if routing.are_real is None:
        weights = normalised.new_ones(n_sequences, normalised.shape[0] // n_sequences)
    else:
        weights = routing.are_real.unflatten(0, (n_sequences, -1)).to(normalised.dtype)
    weights = (weights / add_up(weights.sum(dim=1, keepdim=True)).clamp_min(1))[:, :, None]
    share = add_up((is_best.unflatten(0, (n_sequences, -1)) * weights).sum(dim=1)) * (n_experts / n_chosen)
    mean_score = (normalised.unflatten(0, (n_sequences, -1)) * weights).sum(dim=1)
    return (share * mean_score).sum(dim=-1).mean()


def switch_balance_loss(
    routing: Routing, n_layers: int = 1, add_up: Callable[[Tensor], Tensor] = Tensor.detach
) -> Tensor:
    """The auxiliary loss of the Switch Transformer, without its weight (arXiv 2101.03961, equations 4 to 6).

    E · Σ_i f_i · P_i over all tokens of a micro-batch at once: f_i is the fraction of best scores that are expert i's,
    P_i its mean score, normalised over experts as the softmax is there. Balanced routing gives 1. It differs from
    `sequence_balance_loss` in what has to be balanced: the batch, not every sequence of it. `add_up` is as there.
    """
    return sequence_balance_loss(routing, n_layers, add_up)
