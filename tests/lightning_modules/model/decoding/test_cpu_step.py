"""The step on a CPU, against the decoder's own way through the same cache."""

import pytest
import torch

from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.cpu_step import CpuStep, applies_to
from lightning_modules.model.decoding.step import row_step
from lightning_modules.model.yarn import YarnConfig

N_HELD = 9
ARCHITECTURES = {
    "as published": {},
    "query not compressed": {"q_lora_rank": None},
    "latents too wide to join": {"kv_lora_rank": 30, "q_lora_rank": 30},
    "half-split rotary pairs": {"rope_interleave": False},
    "longer by YaRN": {"rope_scaling": YarnConfig(4.0, 64, mscale_all_dim=1.0)},
    "no shared expert": {"n_shared_experts": 0},
    "one group, softmax": {"n_group": 1, "topk_group": 1, "scoring_func": "softmax"},
    "segments": {"num_expert_segments": 2},
    "segments of many widths": {"num_expert_segments": 2, "expert_segment_sizes": (16, 8), "moe_intermediate_size": 24},
    "segments within experts": {"num_expert_segments": 2, "expert_segment_routing": "hierarchical"},
    "head tied to the embedding": {"tie_word_embeddings": True},
}  # fmt: skip


def held(decoder: Decoder, n_rows: int, fp8: bool = False) -> LatentCache:
    """A cache in which every row holds the same number of tokens."""
    cache = LatentCache(decoder.config, n_rows, 40, fp8=fp8)
    tokens = torch.randint(0, 40, (n_rows, N_HELD), generator=torch.Generator().manual_seed(1))
    decoder.extend_hidden(tokens, cache)
    return cache


def greatest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("changes", ARCHITECTURES.values(), ids=ARCHITECTURES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (4, 1), (3, 2)])
@torch.inference_mode()
def test_a_step_is_the_decoders_own(build_decoder, changes, shape) -> None:
    decoder = build_decoder(**changes)
    step, ours, theirs = CpuStep(decoder), held(decoder, shape[0]), held(decoder, shape[0])
    for seed in range(3):
        tokens = torch.randint(0, 40, shape, generator=torch.Generator().manual_seed(seed))
        assert greatest_difference(step(tokens, ours), decoder.extend_hidden(tokens, theirs)) < 1e-5
    assert ours.lengths.tolist() == theirs.lengths.tolist()
    assert greatest_difference(ours.latent, theirs.latent) < 1e-5
    assert greatest_difference(ours.rope_key, theirs.rope_key) < 1e-5


@pytest.mark.parametrize("fp8", [False, True])
@torch.inference_mode()
def test_rows_of_different_lengths_see_their_own_tokens(build_decoder, fp8) -> None:
    decoder = build_decoder()
    caches = [held(decoder, 3, fp8) for _ in range(2)]
    step, lengths = CpuStep(decoder), torch.tensor([9, 2, 5])
    for cache in caches:
        cache.truncate(lengths)
    for seed in range(3):
        tokens = torch.randint(0, 40, (3, 2), generator=torch.Generator().manual_seed(seed))
        ours, theirs = step(tokens, caches[0]), decoder.extend_hidden(tokens, caches[1])
        assert greatest_difference(ours, theirs) < (1e-2 if fp8 else 1e-5)


@torch.inference_mode()
def test_500_greedy_tokens_are_those_of_the_decoders_own_way(build_decoder) -> None:
    decoder = build_decoder(max_position_embeddings=512)
    tokens = {}
    for way in (row_step(decoder), decoder.extend_hidden):
        cache, token, said = LatentCache(decoder.config, 2, 500), torch.tensor([[1], [2]]), []
        for _ in range(500):
            token = decoder.lm_head(way(token, cache)).argmax(dim=-1)
            said.append(token)
        tokens[way] = torch.cat(said, dim=1).tolist()
    ours, theirs = tokens.values()
    assert ours == theirs


def test_it_applies_to_what_lies_on_a_cpu_and_absorbs(build_decoder) -> None:
    assert isinstance(row_step(build_decoder()), CpuStep)
    assert not applies_to(build_decoder(qk_rope_head_dim=0, v_head_dim=8))
    assert not applies_to(build_decoder().to(torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        assert not applies_to(build_decoder())


def test_its_weights_need_no_gradient(build_decoder) -> None:
    decoder = build_decoder()
    cache = LatentCache(decoder.config, 1, 4)
    assert not CpuStep(decoder)(torch.tensor([[1]]), cache).requires_grad
