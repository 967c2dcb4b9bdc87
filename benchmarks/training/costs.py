"""The least that a step's parts cost: operations by the device's rate, bytes by its bandwidth, counted from the shape.

Bytes are those of every input read once and every output written once, in the type that computes. A backward pass does
two products for each of the forward pass.
"""

from dataclasses import dataclass

import torch

from benchmarks.rates import Rates
from benchmarks.training.workload import Workload
from lightning_modules.model.attention import LatentAttention
from lightning_modules.model.counting import FP8_COMPONENTS, build_on_meta, component_parameters
from lightning_modules.model.decoder import Decoder
from lightning_modules.precision.kinds import FP8_RECIPES
from lightning_modules.precision.recipes import experts_pay, linear_pays

ATTENTION = "attention"
GROUPED_PRODUCTS = "grouped products"
OTHER_PRODUCTS = "other products"
QUANTISATION = "quantisation"
PERMUTATION = "permutation"
ELEMENTWISE = "elementwise"
OPTIMIZER = "optimizer"
GRADIENT_NORM = "gradient norm"
COMMUNICATION = "communication"
PARTS = (
    ATTENTION, GROUPED_PRODUCTS, OTHER_PRODUCTS, QUANTISATION, PERMUTATION, ELEMENTWISE, OPTIMIZER, GRADIENT_NORM,
    COMMUNICATION,
)  # fmt: skip
FP8_SPEED = 2
FP32_BYTES, BF16_BYTES = 4, 2


@dataclass(frozen=True)
class Cost:
    """Operations, those of them that run in FP8, and bytes moved."""

    flops: float = 0.0
    fp8_flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.fp8_flops + other.fp8_flops, self.bytes + other.bytes)

    def milliseconds(self, rates: "Rates") -> float:
        """The floor: whichever of computing and moving takes longer."""
        computing = (self.flops - self.fp8_flops + self.fp8_flops / FP8_SPEED) / rates.flops_per_second
        return 1000 * max(computing, self.bytes / rates.bytes_per_second)


def step_costs(workload: Workload, on_gpu: bool, n_ranks: int = 1) -> dict[str, Cost]:
    """Of one rank's optimizer step, by part; balanced experts, parameters spread evenly over ranks."""
    decoder = build_on_meta(workload.decoder)
    width = FP32_BYTES if workload.precision == "fp32" else BF16_BYTES
    n_parameters = sum(parameter.numel() for parameter in decoder.parameters()) / n_ranks
    has_copies = on_gpu and workload.precision not in ("fp32", "fp16")
    moment = BF16_BYTES if workload.optimizer.moments == "bf16" else FP32_BYTES
    gradient = BF16_BYTES if has_copies and n_ranks == 1 else FP32_BYTES
    # Masters and both moments are read and written; a copy that computes is written.
    step = gradient + 2 * FP32_BYTES + 4 * moment + (BF16_BYTES if has_copies else 0)
    return {
        ATTENTION: _attention(decoder, workload, width),
        **_products(decoder, workload, width),
        PERMUTATION: Cost(bytes=_permutation_bytes(workload, width)),
        ELEMENTWISE: Cost(bytes=_elementwise_bytes(workload, width)),
        OPTIMIZER: Cost(bytes=n_parameters * step),
        GRADIENT_NORM: Cost(bytes=n_parameters * gradient),
    }


def model_flops(costs: dict[str, Cost]) -> float:
    """Operations of the model itself: 6 for each active parameter that multiplies, and causal attention at half."""
    return sum(cost.flops for cost in costs.values())


def _attention(decoder: Decoder, workload: Workload, width: int) -> Cost:
    """Scores and weighted values over half of the pairs within documents; queries, keys, values and heads moved."""
    cost = Cost()
    for module in decoder.modules():
        if isinstance(module, LatentAttention):
            key, value = module.nope_dim + module.rope_dim, module.value_dim
            per_token = module.n_heads * (key + value)
            flops = 3 * 2 * per_token * workload.mean_context / 2
            cost += Cost(flops * workload.n_tokens, 0.0, 3 * width * 2 * per_token * workload.n_tokens)
    return cost


def _products(decoder: Decoder, workload: Workload, width: int) -> dict[str, Cost]:
    """Of tokens with every matrix that they meet."""
    config = decoder.config
    in_fp8 = FP8_COMPONENTS if workload.precision in FP8_RECIPES else ()
    share = config.num_segments_per_tok / config.n_routed_segments
    grouped, other = Cost(), Cost()
    for component, _, parameter in component_parameters(decoder):
        if parameter.ndim < 2 or component in ("embedding", "head"):
            continue
        if component == "routed_experts":
            n_rows, n_matrices = workload.n_tokens * share * parameter.shape[0], parameter.shape[0]
            rounds = component in in_fp8 and experts_pay(config.moe_intermediate_size)
            grouped += _product(n_rows, parameter.shape[1:], n_matrices, width, rounds)
        else:
            rounds = component in in_fp8 and linear_pays(*parameter.shape)
            other += _product(workload.n_tokens, parameter.shape, 1, width, rounds)
    n_predictions = workload.n_tokens * (1 + config.num_nextn_predict_layers)
    other += _product(n_predictions, decoder.lm_head.weight.shape, 1, width, in_fp8=False)
    return {GROUPED_PRODUCTS: grouped, OTHER_PRODUCTS: other}


def _product(n_rows: float, shape: torch.Size, n_matrices: int, width: int, in_fp8: bool) -> Cost:
    """Rows with a matrix each, out of equal ones: forwards, for the rows' gradient, and for the matrices'."""
    outputs, inputs = shape
    flops = 3 * 2 * n_rows * outputs * inputs
    moved = 3 * width * (n_rows * (outputs + inputs) + n_matrices * outputs * inputs)
    return Cost(flops, flops if in_fp8 else 0.0, moved)


def _permutation_bytes(workload: Workload, width: int) -> float:
    """Tokens to the rows of their experts and back, and so their gradients."""
    config = workload.decoder
    n_layers = config.num_hidden_layers - config.first_k_dense_replace + config.num_nextn_predict_layers
    return 4 * n_layers * workload.n_tokens * (1 + config.num_segments_per_tok) * config.hidden_size * width


def _elementwise_bytes(workload: Workload, width: int) -> float:
    """Norms with the residual sums beside them, rotation of queries and keys, SwiGLU, and the loss over the logits."""
    config = workload.decoder
    depth = config.num_nextn_predict_layers
    n_blocks, n_dense = config.num_hidden_layers + depth, config.first_k_dense_replace
    # Forwards two are read and two written; backwards three are read and one written.
    norms = n_blocks * 2 * 8 * config.hidden_size
    rotation = n_blocks * 8 * config.num_attention_heads * config.qk_head_dim
    # Forwards gate and up are read and their product is written; backwards three are read and two written.
    expert_width = (config.num_segments_per_tok * max(config.segment_sizes)) + (
        config.n_shared_experts * config.moe_intermediate_size
    )
    swiglu = 8 * (n_dense * config.intermediate_size + (n_blocks - n_dense) * expert_width)
    loss = 2 * (1 + depth) * config.vocab_size
    return workload.n_tokens * width * (norms + rotation + swiglu + loss)
