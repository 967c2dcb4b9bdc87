"""Every quantity that is compared: what the paper and the card say, and how a model's own value is measured.

Sections are those of the DeepSeek-V3 report, arXiv 2412.19437. The card is the model card this project grew from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning_modules.model.counting import (
    cache_bytes_per_token,
    checkpoint_bytes,
    forward_flops_per_token,
    training_flops_per_token,
)
from pipeline.architecture import attention_probes, module_sizes, precision_probes, routing_probes, training_probes
from pipeline.architecture.expectations import Expected, about, at_most, exactly, one_of
from pipeline.architecture.subject import Subject

SEQUENCE_LENGTH = 4096  # of the FLOPs that are counted: the paper's in pre-training

# How a value was come by.
MODULE = "built module"
RUN = "run"
SETTING = "setting"
CODE = "code base"

# How a quantity is called that a source states as a round number.
AS_STATED = ", as stated"

# In place of a section, where only the published config.json tells.
CONFIGURATION = "config.json"


@dataclass(frozen=True)
class Counted:
    """In place of what a source says: what its preset measures itself, for the source's own number is rounded."""


COUNTED = Counted()


@dataclass(frozen=True)
class Quantity:
    """One row of the table before it is measured.

    `paper` and `card` are None where the source does not say. `measure` yields None where the model or the code base
    has no such thing.
    """

    name: str
    paper: Expected | Counted | None
    card: Expected | Counted | None
    how: str
    section: str
    measure: Callable[[Subject], Any]


def _built(name: str, paper: Any, card: Any, section: str, measure: Callable[[Any], Any]) -> Quantity:
    """Read off the modules of the whole decoder."""
    return Quantity(name, _expected(paper), _expected(card), MODULE, section, lambda s: measure(s.decoder))


def _run(name: str, paper: Any, card: Any, section: str, measure: Callable[[Any], Any]) -> Quantity:
    """Found out by running the scaled-down decoder."""
    return Quantity(name, _expected(paper), _expected(card), RUN, section, lambda s: measure(s.copy))


def _counted(name: str, section: str, measure: Callable[[Subject], Any]) -> Quantity:
    """Counted from modules, for all three models alike."""
    return Quantity(name, COUNTED, COUNTED, MODULE, section, measure)


def _in_code(name: str, section: str, module: str) -> Quantity:
    """Whether the code base has the module that does it; its own tests show that it works."""
    return Quantity(name, exactly("built"), None, CODE, section, lambda _: training_probes.built(module))


def _expected(value: Any) -> Expected | Counted | None:
    return value if value is None or isinstance(value, Expected | Counted) else exactly(value)


def _group(place: int) -> Callable[[Any], int | None]:
    def measure(decoder: Any) -> int | None:
        groups = routing_probes.expert_groups(decoder)
        return None if groups is None else groups[place]

    return measure


def _mtp_weight(progress: float) -> Callable[[Subject], float | None]:
    return lambda s: round(s.objective.mtp_weight_at(1, progress), 4) if s.config.num_nextn_predict_layers else None


def _gflop(subject: Subject, training: bool) -> float:
    count = training_flops_per_token if training else forward_flops_per_token
    return count(subject.decoder, SEQUENCE_LENGTH) / 1e9


_SIZE = (
    _built("layers", 61, 61, "4.2", lambda d: len(d.layers)),
    _built("hidden size", 7168, 7168, "4.2", lambda d: d.embed_tokens.embedding_dim),
    _built("vocabulary", 129280, 128000, CONFIGURATION, lambda d: d.embed_tokens.num_embeddings),
    _built("one matrix for embedding and head", False, None, "2.2", training_probes.shares_embedding),
    _run("RMSNorm epsilon", 1e-6, None, CONFIGURATION, training_probes.norm_eps),
    _run("standard deviation of initial weights", about(0.006, 1e-4), None, "4.2", training_probes.initial_std),
)
_ATTENTION = (
    _built("heads", 128, 128, "4.2", module_sizes.n_heads),
    _built("query compression rank", 1536, "not compressed", "4.2", module_sizes.query_rank),
    _built("key-value compression rank", 512, 1536, "4.2", module_sizes.latent_rank),
    _built("query and key dimensions of a head", 192, 56, "4.2", module_sizes.query_dim),
    _built("value dimensions of a head", 128, 56, "4.2", module_sizes.value_dim),
    _run(
        "query dimensions that positions rotate",
        64,
        56,
        "2.1.1",
        lambda d: attention_probes.rotated_query_dims(d.config),
    ),
    _run("rotary pairs", "adjacent", None, "2.1.1", attention_probes.rotary_pairs),
    _run("rotary base", 10000.0, 10000.0, CONFIGURATION, lambda d: attention_probes.rotary_theta(d.config)),
    _run(
        "YaRN: slowest pair slowed by",
        one_of(1, 40, text="1, then 40"),
        None,
        "4.3",
        lambda d: attention_probes.yarn_factor(d.config),
    ),
    _run(
        "YaRN: attention logits scaled by",
        one_of(1, 1.8738, text="1, then 1.874"),
        None,
        "4.3",
        attention_probes.attention_magnitude,
    ),
    _run("decoding against one full forward, FP32", None, at_most(5e-6), "2.1.1", attention_probes.decoding_error),
)
_EXPERTS = (
    _built("leading dense layers", 3, None, "4.2", module_sizes.leading_dense_layers),
    _built("hidden units of a dense layer", 18432, None, "4.2", module_sizes.dense_width),
    _built("routed experts", 256, 256, "4.2", module_sizes.routed_destinations),
    _built("hidden units of an expert", 2048, 2048, "4.2", module_sizes.expert_width),
    _built("shared experts", 1, 2, "4.2", module_sizes.shared_experts),
    _run("experts a token goes to", 8, 8, "4.2", routing_probes.chosen_experts),
    _run("groups of experts", 8, None, "4.2", _group(0)),
    _run("groups a token may go to", 4, None, "4.2", _group(1)),
    _run("scores", "sigmoid", None, "2.1.2", routing_probes.scoring),
    _run("scores are computed in", "float32", None, "3.3.1", routing_probes.score_precision),
    _run("sum of a token's gates", 2.5, None, CONFIGURATION, routing_probes.gate_sum),
    _run("the routing bias moves", "choice alone", None, "2.1.2", routing_probes.effect_of_bias),
    _run("tokens dropped of 256 sent to one expert", 0, None, "2.1.2", routing_probes.dropped_tokens),
    Quantity(
        "one balancing step of the routing bias",
        exactly("−0.001 busiest, +0.001 idle"),
        None,
        RUN,
        "2.1.2",
        lambda s: routing_probes.bias_update(s.copy, s.objective.bias_update_speed),
    ),
    Quantity(
        "weight of the sequence-wise balance loss",
        exactly(1e-4),
        None,
        SETTING,
        "4.2",
        lambda s: s.objective.sequence_balance_weight,
    ),
)
_PREDICTION = (
    _run("depth", 1, 1, "4.2", training_probes.prediction_depth),
    _run("a module joins", "embedding, hidden", None, "2.2", training_probes.prediction_inputs),
    _run("embedding and head", "shared", None, "2.2", training_probes.prediction_head),
    Quantity("weight of its loss, first", exactly(0.3), None, RUN, "4.2", _mtp_weight(0.0)),
    Quantity("weight of its loss, last", about(0.1, 1e-3), None, RUN, "4.2", _mtp_weight(1.0)),
)
_PARAMETERS = (
    _counted("main model", "4.2", lambda s: s.counts.total),
    Quantity(
        f"main model{AS_STATED}",
        about(671e9, 0.5e9, "671B"),
        about(671e9, 0.5e9, "671B"),
        MODULE,
        "4.2",
        lambda s: s.counts.total,
    ),
    _counted("active a token, embedding included", "4.2", lambda s: s.counts.active),
    Quantity(
        f"active a token{AS_STATED}",
        about(37e9, 0.6e9, "37B"),
        about(37e9, 0.6e9, "37B"),
        MODULE,
        "4.2",
        lambda s: s.counts.active,
    ),
    _counted("active a token, embedding lookup excluded (N of 6N)", "4.2", lambda s: s.counts.active_without_embedding),
    Quantity(
        "main model over active",
        COUNTED,
        about(18.1, 5e-2),
        MODULE,
        "4.2",
        lambda s: s.counts.total / s.counts.active,
    ),
    _counted("attention, one layer", "2.1.1", lambda s: s.counts.by_layer[0]["attention"]),
    _counted("multi-token prediction, its own", "2.2", lambda s: s.counts.mtp),
    _counted("multi-token prediction, with copies as published", "2.2", lambda s: s.counts.mtp_as_published),
    _counted("all that is published", "2.2", lambda s: s.counts.published),
    _counted("elements of routing biases (buffers)", "2.1.2", lambda s: s.counts.routing_bias),
)
_COST = (
    _counted(f"training, GFLOP a token at {SEQUENCE_LENGTH} tokens", "4.2", lambda s: _gflop(s, training=True)),
    _counted(f"forward, GFLOP a token at {SEQUENCE_LENGTH} tokens", "4.2", lambda s: _gflop(s, training=False)),
    _counted("cache, bytes a token, BF16", "2.1.1", lambda s: cache_bytes_per_token(s.config)),
    _counted("cache, bytes a token, latents in FP8", "3.3", lambda s: cache_bytes_per_token(s.config, fp8=True)),
    _counted("checkpoint as published, GB, BF16", "2.2", lambda s: checkpoint_bytes(s.decoder) / 1e9),
    _counted("checkpoint as published, GB, FP8", "3.3", lambda s: checkpoint_bytes(s.decoder, fp8=True) / 1e9),
)
_TRAINING = (
    _run("FP8: an activation's tile, forward", "1 × 128", None, "3.3.2", lambda _: precision_probes.forward_tiles()),
    _run("FP8: a weight's block", "128 × 128", None, "3.3.2", lambda _: precision_probes.weight_tiles()),
    _run("FP8: a gradient's tile, backward", "1 × 128", None, "3.3.2", lambda _: precision_probes.gradient_tiles()),
    _run(
        "FP8: an activation's tile for the weight's gradient",
        "128 × 1",
        None,
        "3.3.3",
        lambda _: precision_probes.weight_gradient_tiles(),
    ),
    _run(
        "FP8 leaves the matrices of",
        "embed_tokens, gate, lm_head",
        None,
        "3.3.1",
        precision_probes.high_precision_matrices,
    ),
    _in_code("recomputation of norms, up-projections and SwiGLU", "3.2.3", "lightning_modules.model.recompute"),
    _in_code("parameter average on the CPU", "3.2.3", "lightning_modules.callbacks.parameter_average"),
)

TOPICS: dict[str, tuple[Quantity, ...]] = {
    "Size": _SIZE,
    "Attention": _ATTENTION,
    "Experts": _EXPERTS,
    "Multi-token prediction": _PREDICTION,
    "Parameters": _PARAMETERS,
    "Cost": _COST,
    "Training": _TRAINING,
}
