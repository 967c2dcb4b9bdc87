"""Feed-forward networks of a step's tokens on a GPU: dense ones, and mixtures of experts.

Suffixes as in `experts.py`; N rows, one a token.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.model.block_scaled import Matrix, matrix_of
from lightning_modules.model.experts import FeedForward, GroupedExperts, MixtureOfExperts
from lightning_modules.model.kernels import chosen_experts, few_rows, grouped_experts
from lightning_modules.model.kernels.chosen_experts import Experts
from lightning_modules.model.kernels.expert_ranks import Choice, choose
from lightning_modules.model.kernels.few_rows import Norm
from lightning_modules.model.kernels.sorted_choices import sort_choices
from lightning_modules.model.router import Router


class GpuDense:
    """`hidden + mlp(norm(hidden))` of a dense network.

    Args:
        network: the layer's.
        norm: before it.
    """

    def __init__(self, network: FeedForward, norm: nn.RMSNorm) -> None:
        self.network = network
        self.norm = norm
        gate, up, down = map(matrix_of, (network.gate_proj, network.up_proj, network.down_proj))
        self.experts = Experts(gate, up, down, None, None, 1, network.gate_proj.out_features)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Map `hidden` [N, D] to [N, D]."""
        if hidden.shape[0] <= few_rows.FEW_ROWS:
            activations = chosen_experts.activate(hidden, Norm.of(self.norm), self.experts, None)
            return chosen_experts.project_down(activations, hidden, self.experts, None)
        network, normalised = self.network, self.norm(hidden)
        gate, up = (F.linear(normalised, x.weight) for x in (network.gate_proj, network.up_proj))
        return torch.addmm(hidden, F.silu(gate) * up, network.down_proj.weight.mT)


class GpuMixture:
    """`hidden + mlp(norm(hidden))` of a mixture of experts.

    Args:
        mixture: the layer's; all of its experts live here.
        norm: before it.
    """

    def __init__(self, mixture: MixtureOfExperts, norm: nn.RMSNorm) -> None:
        self.norm = norm
        self.router: Router = mixture.gate
        self.experts = _experts_of(mixture)
        self.choice = choice_of(self.router)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Map `hidden` [N, D] to [N, D]."""
        if hidden.shape[0] <= few_rows.FEW_ROWS:
            norm = Norm.of(self.norm)
            logits = few_rows.multiply(hidden, Matrix(self.router.weight), norm=norm, dtype=torch.float32)
            choices = choose(logits, self.choice)
            activations = chosen_experts.activate(hidden, norm, self.experts, choices)
            return chosen_experts.project_down(activations, hidden, self.experts, choices)
        normalised = self.norm(hidden)
        choices = choose(router_logits(self.router, normalised), self.choice)
        order = sort_choices(choices.indices, self.choice.n_experts)
        activations = grouped_experts.activate(normalised, self.experts, order, choices.weights)
        return grouped_experts.project_down(activations, hidden, self.experts, order)


def _experts_of(mixture: MixtureOfExperts) -> Experts:
    stack, shared = cast(GroupedExperts, mixture.experts), mixture.shared_experts
    routed = matrix_of(stack, "gate_up_proj"), matrix_of(stack, "down_proj")
    width = routed[1].values.shape[-1]
    if shared is None:
        return Experts(None, None, None, *routed, 0, width)
    gate, up, down = map(matrix_of, (shared.gate_proj, shared.up_proj, shared.down_proj))
    return Experts(gate, up, down, *routed, shared.gate_proj.out_features // width, width)


def router_logits(router: Router, normalised: Tensor) -> Tensor:
    """FP32 [N, E], exact as `Router` has them: a product of BF16 numbers is so in FP32."""
    weight = router.weight
    if weight.is_cuda and weight.dtype == normalised.dtype == torch.bfloat16:
        return torch.mm(normalised, weight.mT, out_dtype=torch.float32)
    return router.logits(normalised)


def choice_of(router: Router) -> Choice:
    """How a router chooses, as kernels take it."""
    return Choice(
        router.e_score_correction_bias,
        router.weight.shape[0],
        router.n_groups,
        router.n_groups_kept,
        router.n_chosen,
        router.scoring_func == "sigmoid",
        router.normalises_gates,
        router.scaling_factor,
    )
