"""The proof proves something: each of these mistakes is made on purpose, and the comparison sees it.

Every test first finds the unchanged decoder equal, then changes one thing.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.model import attention, attention_inputs, rotary
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder, PredictionModule
from lightning_modules.model.router import Router, Routing

TOLERANCE = 5e-6
# Rounding stays a thousand times below.
SEEN = 5e-3


@pytest.fixture
def decoder(build_decoder) -> Decoder:
    return build_decoder(initializer_range=0.1)


@pytest.fixture
def compare(decoder: Decoder, reference, compare_with_reference) -> Callable[[], Any]:
    """Compare with a reference that took the weights over before anything was changed."""
    held = reference(decoder)
    run = lambda: compare_with_reference(decoder, held)  # noqa: E731
    assert run().worst < TOLERANCE
    return run


def test_a_wrong_interleave_flag_is_seen(compare, monkeypatch: pytest.MonkeyPatch) -> None:
    original = rotary.rotate
    monkeypatch.setattr(attention, "rotate", lambda x, cos, sin, interleaves: original(x, cos, sin, not interleaves))
    assert compare().logits > SEEN


def test_gates_from_biased_scores_are_seen(compare, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Router.forward

    def forward(self: Router, hidden: Tensor) -> Routing:
        routing = original(self, hidden)
        gates = (routing.scores + self.e_score_correction_bias).gather(1, routing.indices)
        return routing._replace(gates=gates / gates.sum(dim=1, keepdim=True) * self.scaling_factor)

    monkeypatch.setattr(Router, "forward", forward)
    assert compare().logits > SEEN


def test_a_lost_bias_is_seen(decoder: Decoder, compare) -> None:
    decoder.routers()[-2].e_score_correction_bias.zero_()
    assert compare().logits > SEEN


def test_a_swapped_concatenation_in_multi_token_prediction_is_seen(compare, monkeypatch: pytest.MonkeyPatch) -> None:
    original = PredictionModule.forward

    def forward(self: PredictionModule, hidden: Tensor, embedding: Tensor, *args: Any) -> tuple[Tensor, Routing]:
        self.enorm, self.hnorm = self.hnorm, self.enorm
        try:
            return original(self, embedding, hidden, *args)
        finally:
            self.enorm, self.hnorm = self.hnorm, self.enorm

    monkeypatch.setattr(PredictionModule, "forward", forward)
    comparison = compare()
    assert comparison.logits < TOLERANCE
    assert comparison.ahead_logits > SEEN


def test_a_missing_attention_scale_of_yarn_is_seen(build_decoder, reference, compare_with_reference) -> None:
    decoder = build_decoder(
        rope_scaling={"factor": 40, "original_max_position_embeddings": 4}, max_position_embeddings=160
    )
    held = reference(decoder)
    assert compare_with_reference(decoder, held).logits < TOLERANCE
    for layer in decoder.layers:
        layer.self_attn.scale = decoder.config.qk_head_dim**-0.5
    assert compare_with_reference(decoder, held).logits > SEEN


@torch.no_grad()
def decoding_error(decoder: Decoder) -> float:
    """Of decoding in pieces, against the full forward."""
    tokens = torch.randint(0, 40, (2, 20), generator=torch.Generator().manual_seed(0))
    full, _ = decoder.next_token_logits(tokens)
    cache = LatentCache(decoder.config, batch_size=2, capacity=20)
    pieces = [decoder.extend(piece, cache) for piece in tokens.split([9, 1, 1, 6, 3], dim=1)]
    return float((torch.cat(pieces, dim=1) - full).abs().max() / full.abs().max())


def test_a_missing_position_offset_in_decoding_is_seen(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoding_error(decoder) < TOLERANCE
    original = rotary.rotary_cos_sin

    def from_zero(positions: Tensor, config: DecoderConfig) -> tuple[Tensor, Tensor]:
        return original(positions - positions[..., :1], config)

    monkeypatch.setattr(attention_inputs, "rotary_cos_sin", from_zero)
    assert decoding_error(decoder) > SEEN
