"""The fused step against `Decoder.extend_hidden`; under TRITON_INTERPRET=1 without a GPU."""

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

from lightning_modules.model.decoding.gpu_step import GpuStep  # noqa: E402

on_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="this many steps take a GPU")
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
        {"n_shared_experts": 0, "rope_scaling": YARN},
        {"n_shared_experts": 2, "scoring_func": "softmax", "norm_topk_prob": False},
        {"num_expert_segments": 2, "moe_intermediate_size": 32},
    ],
)
@pytest.mark.parametrize(("n_rows", "n_new"), [(1, 1), (2, 2), (5, 2)])
@torch.inference_mode()
def test_a_step_is_that_of_the_decoder(changes: dict[str, Any], n_rows: int, n_new: int) -> None:
    config = replace(TINY, **changes)
    decoder = build(config)
    fused, plain = (LatentCache(config, n_rows, 24, device=DEVICE) for _ in range(2))
    torch.manual_seed(0)
    prompt = torch.randint(0, config.vocab_size, (n_rows, 9), device=DEVICE)
    for cache in (fused, plain):
        decoder.extend_hidden(prompt, cache)
        cache.truncate(9 - torch.arange(n_rows, device=DEVICE) % 4)
    tokens = torch.randint(0, config.vocab_size, (n_rows, n_new), device=DEVICE)
    expected, got = decoder.extend_hidden(tokens, plain), GpuStep(decoder)(tokens, fused)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fused.latent, plain.latent, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fused.rope_key, plain.rope_key, rtol=1e-4, atol=1e-5)
    assert torch.equal(fused.lengths, plain.lengths)


@on_gpu
@pytest.mark.parametrize("n_rows", [1, 3, 12])
@torch.inference_mode()
def test_greedy_tokens_are_those_of_the_decoder(n_rows: int) -> None:
    """500 tokens in FP32 are the same."""
    config = replace(TINY, hidden_size=256, num_attention_heads=4, kv_lora_rank=128, vocab_size=1000)
    decoder = build(config)
    said = []
    for step in (decoder.extend_hidden, GpuStep(decoder)):
        cache, token = LatentCache(config, n_rows, 501, device=DEVICE), torch.arange(n_rows, device=DEVICE)[:, None]
        tokens = [token := decoder.lm_head(step(token, cache)).argmax(dim=-1) for _ in range(500)]
        said.append(torch.cat(tokens, dim=1))
    assert torch.equal(*said)


@on_gpu
@pytest.mark.parametrize("n_rows", [1, 3, 12])
@torch.inference_mode()
def test_bf16_is_as_far_from_fp32_as_the_decoder_s_own(n_rows: int) -> None:
    """All experts are chosen: of some, rounding would choose others, and any other makes more of a difference."""
    every = {"n_group": 1, "topk_group": 1, "num_experts_per_tok": TINY.n_routed_experts}
    config = replace(TINY, hidden_size=512, num_attention_heads=4, kv_lora_rank=128, initializer_range=0.04, **every)
    decoder = build(config, torch.bfloat16)
    exact = build(config)
    exact.load_state_dict(decoder.state_dict())
    torch.manual_seed(0)
    tokens = torch.randint(0, config.vocab_size, (n_rows, 60), device=DEVICE)
    outputs = []
    for step in (exact.extend_hidden, decoder.extend_hidden, GpuStep(decoder)):
        dtype = torch.float32 if not outputs else torch.bfloat16
        cache = LatentCache(config, n_rows, 60, dtype, DEVICE)
        outputs.append(torch.cat([step(tokens[:, place : place + 1], cache) for place in range(60)], dim=1).float())
    expected, plain, fused = outputs
    assert (fused - expected).norm() < 1.2 * (plain - expected).norm()
