"""Prompts through fused layers against `Decoder.extend_hidden`; under TRITON_INTERPRET=1 without a GPU."""

import os
from dataclasses import replace
from typing import Any

import pytest
import torch

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.decoder import Decoder
from tests.conftest import TINY

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("the kernels run on a GPU or under TRITON_INTERPRET=1", allow_module_level=True)

from lightning_modules.model.decoding.gpu_prompts import GpuReader  # noqa: E402

on_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="torch attends to cached tokens in 16 bits on a GPU alone")
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
YARN = {"factor": 4.0, "original_max_position_embeddings": 64, "mscale_all_dim": 0.0}


def build(config: DecoderConfig, dtype: torch.dtype = torch.float32) -> Decoder:
    decoder = Decoder(config)
    decoder.initialize_weights(1)
    for router in decoder.routers():
        torch.nn.init.normal_(router.e_score_correction_bias, std=0.1)
    return decoder.to(DEVICE, dtype).eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"q_lora_rank": None, "rope_interleave": False},
        {"n_shared_experts": 0, "rope_scaling": YARN, "v_head_dim": 8},
        {"n_shared_experts": 2, "scoring_func": "softmax", "norm_topk_prob": False},
        {"num_expert_segments": 2, "moe_intermediate_size": 32},
    ],
)
@torch.inference_mode()
def test_prompts_are_read_as_by_the_decoder(changes: dict[str, Any]) -> None:
    config = replace(TINY, **changes)
    decoder = build(config)
    reader = GpuReader(decoder)
    plain, *fused = (LatentCache(config, 2, 24, device=DEVICE) for _ in range(4))
    torch.manual_seed(0)
    tokens = torch.randint(0, config.vocab_size, (2, 11), device=DEVICE)
    index = torch.tensor([10, 4], device=DEVICE)
    expected = decoder.extend_hidden(tokens, plain)
    torch.testing.assert_close(reader.extend(tokens, fused[0]), expected, **TOLERANCE)
    reader.remember(tokens, fused[1])
    last = reader.extend_to(tokens, fused[2], index)
    torch.testing.assert_close(last, expected[torch.arange(2, device=DEVICE), index], **TOLERANCE)
    for cache in fused:
        torch.testing.assert_close(cache.rope_key, plain.rope_key, **TOLERANCE)
        torch.testing.assert_close(cache.latent, plain.latent, **TOLERANCE)
        assert torch.equal(cache.lengths, plain.lengths)
        assert cache.longest == plain.longest


@torch.inference_mode()
def test_few_tokens_behind_held_ones_are_a_step() -> None:
    decoder = build(TINY)
    plain, fused = (LatentCache(TINY, 2, 24, device=DEVICE) for _ in range(2))
    tokens = torch.randint(0, TINY.vocab_size, (2, 12), device=DEVICE)
    for cache in (plain, fused):
        decoder.extend_hidden(tokens[:, :9], cache)
        cache.truncate(torch.tensor([9, 4], device=DEVICE))
    expected = decoder.extend_hidden(tokens[:, 9:], plain)
    torch.testing.assert_close(GpuReader(decoder).extend(tokens[:, 9:], fused), expected, **TOLERANCE)


@on_gpu
@pytest.mark.parametrize("held", [[400, 123, 1], [400, 400, 400]])
@pytest.mark.parametrize("fp8", [False, True])
@torch.inference_mode()
def test_chunks_in_16_bits_are_as_far_from_fp32_as_the_decoder_s_own(fp8: bool, held: list[int]) -> None:
    """The second chunk follows what is held, of ragged rows or of rows of one length."""
    heads = {"num_attention_heads": 4, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
    config = replace(TINY, hidden_size=512, kv_lora_rank=128, initializer_range=0.04, **heads)
    decoder = build(config, torch.bfloat16)
    exact = build(config)
    exact.load_state_dict(decoder.state_dict())
    torch.manual_seed(0)
    tokens = torch.randint(0, config.vocab_size, (3, 700), device=DEVICE)
    reader, outputs = GpuReader(decoder), []
    for extend in (exact.extend_hidden, decoder.extend_hidden, reader.extend):
        dtype = torch.bfloat16 if outputs else torch.float32
        cache = LatentCache(config, 3, 700, dtype, DEVICE, fp8=fp8)
        first = extend(tokens[:, :400], cache)
        if len(set(held)) > 1:
            cache.truncate(torch.tensor(held, device=DEVICE))
        assert cache.is_even == (len(set(held)) == 1)
        outputs.append(torch.cat((first, extend(tokens[:, 400:], cache)), dim=1).float())
    expected, plain, fused = outputs
    assert (fused - expected).norm() < 1.2 * (plain - expected).norm()
