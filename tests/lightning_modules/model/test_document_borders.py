from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from lightning_modules.model.attention import LatentAttention
from lightning_modules.model.attention_inputs import cached_inputs, packed_inputs
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.document_borders import DocumentBorders

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel needs a GPU")


def test_documents_of_all_rows_lie_end_to_end_and_padding_is_one_of_them() -> None:
    document_ids = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 4, -1, -1]])
    offsets, longest = DocumentBorders.of(document_ids, room=(1, 1))
    assert offsets.tolist() == [0, 3, 5, 7, 8, 10, 10, 10, 10]
    assert offsets.dtype == torch.int32
    assert longest == 4


def test_room_once_found_serves_smaller_batches() -> None:
    many = DocumentBorders.of(torch.arange(40)[None])
    assert many.room == (64, 128)
    few = DocumentBorders.of(torch.zeros(2, 300, dtype=torch.long), many.room)
    assert few.room == (64, 512)
    assert few.offsets[:3].tolist() == [0, 300, 600]
    assert set(few.offsets[3:].tolist()) == {600}


def test_the_rest_of_a_row_is_a_document_too() -> None:
    offsets, longest = DocumentBorders.of_beginnings(torch.tensor([3, 0, 5]), 5)
    assert offsets.tolist() == [0, 3, 5, 5, 10, 15, 15]
    assert offsets.dtype == torch.int32
    assert longest == 5


@on_gpu
@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("held", [[0, 0, 0], [130, 5, 0]])
def test_many_new_tokens_attend_over_the_cache_as_the_mask_does(
    tiny_config: DecoderConfig, held: list[int], fp8: bool
) -> None:
    torch.manual_seed(0)
    config = replace(tiny_config, qk_rope_head_dim=16, qk_nope_head_dim=32, v_head_dim=48)
    attention = LatentAttention(config).to("cuda", torch.bfloat16)
    exact = deepcopy(attention).float()
    caches = [LatentCache(config, 3, 300, dtype, "cuda", fp8) for dtype in (torch.bfloat16, torch.float32)]
    earlier = torch.randn(3, max(held), config.hidden_size, device="cuda", dtype=torch.bfloat16)
    hidden = torch.randn(3, 90, config.hidden_size, device="cuda", dtype=torch.bfloat16)
    found = []
    for module, cache in zip((attention, exact), caches, strict=True):
        dtype = cache.rope_key.dtype
        if max(held):
            module(earlier.to(dtype), cached_inputs(config, cache, max(held), absorb=False), cache)
            cache.advance(max(held))
            cache.truncate(torch.tensor(held))
        inputs = cached_inputs(config, cache, 90, absorb=False)
        assert (inputs.spans is None) == (dtype == torch.bfloat16 or not max(held))
        found.append(module(hidden.to(dtype), inputs, cache))
    assert (found[0].float() - found[1]).norm() <= 0.02 * found[1].norm()


@on_gpu
@pytest.mark.parametrize(("rope", "value"), [(64, 128), (16, 48)])
def test_one_kernel_attends_as_the_mask_does(tiny_config: DecoderConfig, rope: int, value: int) -> None:
    torch.manual_seed(0)
    config = replace(tiny_config, qk_rope_head_dim=rope, qk_nope_head_dim=2 * rope, v_head_dim=value)
    attention = LatentAttention(config).to("cuda", torch.bfloat16)
    exact = deepcopy(attention).double()
    document_ids = torch.tensor([0] * 70 + [1] * 300 + [2] * 1 + [-1] * 29).repeat(2, 1)
    document_ids[1, :100] = 7
    borders = DocumentBorders.of(document_ids)
    borders = borders._replace(offsets=borders.offsets.cuda())
    hidden = torch.randn(2, 400, config.hidden_size, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    exact_hidden = hidden.detach().double().requires_grad_()
    gradient = torch.randn_like(hidden)
    by_kernel = attention(hidden, packed_inputs(config, document_ids.cuda(), borders=borders))
    by_mask = exact(exact_hidden, packed_inputs(config, document_ids.cuda()))
    by_kernel.backward(gradient)
    by_mask.backward(gradient.double())
    found = [by_kernel, hidden.grad, *(p.grad for p in attention.parameters())]
    expected = [by_mask, exact_hidden.grad, *(p.grad for p in exact.parameters())]
    for mine, reference in zip(found, expected, strict=True):
        assert (mine.double() - reference).norm() <= 0.02 * reference.norm()
