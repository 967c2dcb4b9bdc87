"""Spans of keys: the same attention as by one mask, of which only pieces ever exist."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_modules.model import key_spans
from lightning_modules.model.attention_inputs import document_beginnings
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.key_spans import KeySpans, attend_spans
from lightning_modules.model.recompute_kinds import RECOMPUTE_KINDS
from lightning_modules.model.shared_rows import run_within_spans
from tests.lightning_modules.model.shared_with_nobody import SharedWithNobody

N_TOKENS = 256


class LargestTensor(TorchDispatchMode):
    """Notes how many numbers the largest new tensor has."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.size = max(self.size, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.fixture
def document_ids() -> Tensor:
    rows = [torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in ([200, 1, 55], [30, 226])]
    ids = torch.stack(rows)
    ids[0, -20:] = -1
    return ids


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(key_spans, "LARGEST", 2**12)


@pytest.mark.parametrize("start", [0, 64, 192])
def test_pieces_show_what_the_whole_mask_does(small_pieces, document_ids: Tensor, start: int) -> None:
    first = document_beginnings(document_ids)
    whole = run_within_spans(first, start, 64).spans
    small_pieces()
    spans = run_within_spans(first, start, 64).spans
    assert whole is not None
    assert spans is not None
    assert whole.mask is not None
    assert spans.mask is None
    shown = torch.zeros_like(whole.mask)
    for begin, end in spans.pieces():
        shown[:, :, begin:end, : spans.stop(end)] = spans.seen(begin, end)
    assert torch.equal(shown, whole.mask)


@pytest.mark.parametrize("widths", [(24, 24), (24, 16), (16, 24)])
def test_attention_and_its_gradients_are_those_of_the_whole_mask(small_pieces, document_ids: Tensor, widths) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(2, 3, N_TOKENS, width, generator=generator, dtype=torch.float64, requires_grad=True)
        for width in (widths[0], *widths)
    ]
    places, first = torch.arange(N_TOKENS)[None], document_beginnings(document_ids)
    whole = attend_spans(*inputs, KeySpans.of(places, N_TOKENS, first), 0.2)
    small_pieces()
    by_piece = attend_spans(*inputs, KeySpans.of(places, N_TOKENS, first), 0.2)
    torch.testing.assert_close(by_piece, whole)
    gradients = [torch.autograd.grad(heads.square().sum(), inputs) for heads in (whole, by_piece)]
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("recompute", RECOMPUTE_KINDS)
@pytest.mark.parametrize("is_shared", [False, True])
def test_training_makes_no_mask_of_all_tokens(
    build_decoder, small_pieces, document_ids: Tensor, recompute: str, is_shared: bool
) -> None:
    decoder: Decoder = build_decoder(num_attention_heads=2, max_position_embeddings=N_TOKENS)
    lean = copy.deepcopy(decoder)
    lean.recompute = recompute
    if is_shared:
        lean.shared_rows = SharedWithNobody(0, 1)
    depth = len(decoder.mtp)
    tokens = torch.randint(0, decoder.config.vocab_size, (2, N_TOKENS + depth))
    targets = [torch.randint(0, decoder.config.vocab_size, (2, N_TOKENS)) for _ in range(1 + depth)]
    expected = torch.stack(decoder.losses(tokens, targets, document_ids).sums).sum()
    expected.backward()
    small_pieces()
    with LargestTensor() as largest:
        losses = torch.stack(lean.losses(tokens, targets, document_ids).sums).sum()
        losses.backward()
    assert largest.size < N_TOKENS**2
    torch.testing.assert_close(losses, expected)
    for ours, wanted in zip(lean.parameters(), decoder.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, wanted.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("absorb", [False, True])
def test_prompts_over_a_cache_make_none_either(build_decoder, small_pieces, absorb: bool) -> None:
    decoder: Decoder = build_decoder(num_attention_heads=2, max_position_embeddings=N_TOKENS)
    tokens = torch.randint(0, decoder.config.vocab_size, (2, N_TOKENS))

    def second_half() -> Tensor:
        cache = LatentCache(decoder.config, 2, N_TOKENS, torch.float32, "cpu")
        decoder.extend_hidden(tokens[:, : N_TOKENS // 2], cache)
        return decoder.extend_hidden(tokens[:, N_TOKENS // 2 :], cache, absorb)

    with torch.no_grad():
        expected = second_half()
        small_pieces()
        with LargestTensor() as largest:
            found = second_half()
    assert largest.size < N_TOKENS**2 // 2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
