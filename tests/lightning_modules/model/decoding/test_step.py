"""The prediction modules' steps, against the decoder's own way; the GPU's under TRITON_INTERPRET=1 without one."""

import os
from collections.abc import Callable

import pytest
import torch

from lightning_modules.model.attention_inputs import cached_inputs
from lightning_modules.model.cache import LatentCache
from lightning_modules.model.decoder import Decoder
from lightning_modules.model.decoding.cpu_step import CpuStep
from lightning_modules.model.decoding.step import PlainStep, RowStep, row_step


def gpu_step(decoder: Decoder) -> RowStep:
    pytest.importorskip("triton")
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("the kernels run on a GPU or under TRITON_INTERPRET=1")
    from lightning_modules.model.decoding.gpu_step import GpuStep

    return GpuStep(decoder)


@pytest.mark.parametrize("make", [PlainStep, CpuStep, gpu_step])
@pytest.mark.parametrize("shape", [(1, 2), (3, 4)])
@torch.inference_mode()
def test_modules_step_as_the_decoder_lets_them(build_decoder, make: Callable[[Decoder], RowStep], shape) -> None:
    device = "cuda" if make is gpu_step and torch.cuda.is_available() else "cpu"
    decoder = build_decoder(num_nextn_predict_layers=2).to(device)
    step = make(decoder)
    n_rows, n_new = shape
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 40, (n_rows, 8 + n_new), generator=generator).to(device)
    hidden = torch.randn(n_rows, 8 + n_new, 32, generator=generator).to(device)
    lengths = 8 - 2 * torch.arange(n_rows, device=device)
    said = []
    for is_ours in (True, False):
        cache = LatentCache(decoder.config, n_rows, 20, device=device, n_layers=2)
        inputs = cached_inputs(decoder.config, cache, 8)
        for depth in (1, 2):
            decoder.extend_ahead(depth, hidden[:, :8], tokens[:, :8], inputs, cache)
        cache.hold(lengths, 8)
        state, inputs = hidden[:, 8:], cached_inputs(decoder.config, cache, n_new)
        for depth in (1, 2):
            of_step = (depth, state, tokens[:, 8:])
            state = step.ahead(*of_step, cache) if is_ours else decoder.extend_ahead(*of_step, inputs, cache)
        assert torch.equal(cache.lengths, lengths)
        said += [state, cache.latent, cache.rope_key]
    for ours, theirs in zip(said[:3], said[3:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_whatever_has_no_way_of_its_own_steps_as_the_decoder_does(build_decoder) -> None:
    assert isinstance(row_step(build_decoder()), CpuStep)
    assert isinstance(row_step(build_decoder(qk_rope_head_dim=0)), PlainStep)
