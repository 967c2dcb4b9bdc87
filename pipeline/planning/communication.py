"""Bytes that one rank receives from others in a step.

Collectives over n ranks of which g share a machine: of B bytes that a rank ends up with, (n - 1) / n come from others.
A machine receives what its ranks lack together, once, and they pass it on: (n - g) / n · B over the network for its g
ranks together. In an all-to-all every pair of ranks talks for itself; so it does to sum gradients, each in one place,
and where tokens are gathered and their sums sent back.
"""

import math
from dataclasses import asdict, dataclass

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.parallel.configuration import gathers_tokens
from pipeline.planning.settings import Layout, PlannedTraining
from pipeline.planning.shards import FP32_BYTES, parameter_units

# E4M3, and an FP32 scale for every 128.
FP8_BYTES = 1 + 4 / 128


@dataclass(frozen=True)
class Traffic:
    """Bytes a rank receives within its machine, and from others."""

    intra_node: int = 0
    inter_node: int = 0

    @property
    def total(self) -> int:
        """Both."""
        return self.intra_node + self.inter_node

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.intra_node + other.intra_node, self.inter_node + other.inter_node)

    def times(self, factor: float) -> "Traffic":
        """This traffic, `factor` times over."""
        return Traffic(round(self.intra_node * factor), round(self.inter_node * factor))


@dataclass(frozen=True)
class StepTraffic:
    """What a rank receives in an optimizer step.

    Attributes:
        dispatch: tokens on their way to experts, forwards, and once more where whole blocks are recomputed.
        combine: experts' outputs on their way back, likewise.
        all_to_all_backward: gradients of both.
        all_gather: parameters, before each block forwards and backwards.
        reduce_scatter: gradients, to those who share a parameter; once, or once a micro-batch.
        all_reduce: gradients, between replicas.
        context: compressed keys and values of windows that ranks share, before attention forwards and backwards, and
            their gradients.
    """

    dispatch: Traffic
    combine: Traffic
    all_to_all_backward: Traffic
    all_gather: Traffic
    reduce_scatter: Traffic
    all_reduce: Traffic
    context: Traffic

    @property
    def all_to_all(self) -> Traffic:
        """Token dispatch in all."""
        return self.dispatch + self.combine + self.all_to_all_backward

    @property
    def total(self) -> Traffic:
        """Everything."""
        return self.all_to_all + self.all_gather + self.reduce_scatter + self.all_reduce + self.context

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Plain numbers: bytes by kind, and whether they cross the network."""
        kinds = asdict(self) | {"all_to_all": asdict(self.all_to_all), "total": asdict(self.total)}
        return {f"{kind}_bytes": {**parts, "total": sum(parts.values())} for kind, parts in kinds.items()}


def step_traffic(training: PlannedTraining, layout: Layout, dispatch: str, has_fp8: bool) -> StepTraffic:
    """Count a step's traffic.

    Args:
        training: what is trained.
        layout: the ranks.
        dispatch: `strategy.dispatch`.
        has_fp8: whether GPUs compute in FP8; DeepEP then sends tokens so, forwards, where the recipe rounds them.
    """
    width = training.decoder.hidden_size
    n_mixtures = training.decoder.num_hidden_layers - training.decoder.first_k_dense_replace
    n_mixtures += training.decoder.num_nextn_predict_layers
    n_chosen = training.decoder.num_segments_per_tok
    gathers = gathers_tokens(dispatch, layout.ep, n_chosen)
    rounds = training.precision == "fp8_deepseek" and has_fp8 and not gathers and dispatch != "all_to_all"
    copies = layout.ep if gathers else n_chosen
    number = training.gathered_bytes
    n_tokens = training.n_tokens * training.accumulate_grad_batches
    rows = n_tokens // layout.cp * copies * n_mixtures
    way = _pairwise(rows * width * number, layout.ep, 1, layout)
    # Whole gradients of micro-batches and those of replicas are summed in FP32.
    sums_again = training.keeps_whole_gradients or layout.dp_replicate > 1
    n_reductions = training.accumulate_grad_batches if training.reduce_every_micro_batch else 1
    n_forwards = 2 if training.recomputes_blocks else 1
    of_gradients = FP32_BYTES if sums_again else training.gradient_bytes
    gathered, scattered, reduced = Traffic(), Traffic(), Traffic()
    for unit in parameter_units(training.decoder):
        n_ranks, stride = unit.n_shards(layout), layout.ep if unit.is_expert else 1
        # What lies outside blocks is gathered once; a block's parameters once more for the backward pass.
        n_gathers = (2 if unit.block else 1) * training.accumulate_grad_batches
        gathered += _collective(unit.gathered_bytes(layout, number), n_ranks, stride, layout).times(n_gathers)
        sent = unit.gathered_bytes(layout, of_gradients) * n_reductions
        scattered += _pairwise(sent, n_ranks, stride, layout)
        # A reduction and a gathering of the same bytes, between ranks that hold the same shard.
        local = unit.n_local(layout) * FP32_BYTES
        reduced += _collective(local, layout.dp_replicate, layout.n_dense_shards, layout).times(2 * n_reductions)
    return StepTraffic(
        dispatch=way.times(n_forwards * (FP8_BYTES / number if rounds else 1)),
        combine=way.times(n_forwards),
        all_to_all_backward=way.times(2),
        all_gather=gathered,
        reduce_scatter=scattered,
        all_reduce=reduced,
        context=_pairwise(_compressed(training.decoder) * n_tokens * number, layout.cp, layout.ep, layout).times(3),
    )


def _compressed(config: DecoderConfig) -> int:
    """Numbers that stand for a token's keys and values, of all blocks."""
    n_blocks = config.num_hidden_layers + config.num_nextn_predict_layers
    return n_blocks * (config.kv_lora_rank + config.qk_rope_head_dim)


def _pairwise(n_bytes: float, n_ranks: int, stride: int, layout: Layout) -> Traffic:
    """Of `n_bytes` that come evenly from `n_ranks` ranks that lie `stride` apart, those of others."""
    here = _neighbours(n_ranks, stride, layout)
    inter = n_bytes * (n_ranks - here) / n_ranks
    return Traffic(round(n_bytes * (n_ranks - 1) / n_ranks - inter), round(inter))


def _collective(n_bytes: float, n_ranks: int, stride: int, layout: Layout) -> Traffic:
    """Gathering `n_bytes`, or reducing them, over `n_ranks` ranks that lie `stride` apart."""
    here = _neighbours(n_ranks, stride, layout)
    inter = n_bytes * (n_ranks - here) / n_ranks / here
    return Traffic(round(n_bytes * (n_ranks - 1) / n_ranks - inter), round(inter))


def _neighbours(n_ranks: int, stride: int, layout: Layout) -> int:
    """How many of `n_ranks` ranks that lie `stride` apart share a machine."""
    return min(n_ranks, max(1, math.ceil(layout.gpus_per_node / stride)))
