"""A model under examination: on the meta device for its sizes, and scaled down for its behaviour."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.counting import ParameterCounts, build_on_meta, count_parameters
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.objective import ObjectiveConfig


@dataclass(frozen=True)
class Subject:
    """A decoder as configured; what is built from it is built once, when first asked for."""

    config: DecoderConfig
    objective: ObjectiveConfig

    @cached_property
    def decoder(self) -> Decoder:
        """The whole decoder on the meta device."""
        return build_on_meta(self.config)

    @cached_property
    def counts(self) -> ParameterCounts:
        """Its parameters."""
        return count_parameters(self.decoder)

    @cached_property
    def copy(self) -> Decoder:
        """A small decoder that behaves alike, with initial weights, the same at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            decoder = Decoder(scaled_down(self.config)).eval()
            decoder.initialize_weights()
        return decoder


def scaled_down(config: DecoderConfig) -> DecoderConfig:
    """A decoder of the same behaviour in the smallest size.

    Widths, heads, ranks, layers and vocabulary shrink. Everything that decides what is computed stays: the dimensions
    of a head, all experts and groups, how many are chosen, depths of prediction, constants.
    """
    n_dense = min(config.first_k_dense_replace, 1)
    has_experts = config.first_k_dense_replace < config.num_hidden_layers
    return replace(
        config,
        vocab_size=64,
        hidden_size=64,
        num_hidden_layers=n_dense + has_experts,
        first_k_dense_replace=n_dense,
        num_attention_heads=2,
        q_lora_rank=None if config.q_lora_rank is None else 32,
        kv_lora_rank=32,
        intermediate_size=64,
        moe_intermediate_size=8 * config.num_expert_segments,
        expert_segment_sizes=None,
    )
