"""The norm, against torch's own."""

import torch
import torch.nn.functional as F

from lightning_modules.model.by_hand.rms_norm import rms_norm
from lightning_modules.model.norm import RMSNorm


def inputs(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(size, generator=generator, dtype=dtype) for size in ((2, 3, 8), (8,)))
    x[0, 0] = 1e-4  # where eps counts
    return x.requires_grad_(), weight.requires_grad_()


def test_it_is_torchs_norm():
    x, weight = inputs()
    torch.testing.assert_close(rms_norm(x, weight, 1e-6), F.rms_norm(x, (8,), weight, 1e-6))


def test_gradients_are_those_of_small_differences():
    assert torch.autograd.gradcheck(lambda x, weight: rms_norm(x, weight, 1e-6), inputs())


def test_a_module_norms_16_bits_as_torch_does():
    x = inputs()[0].detach().bfloat16()
    norm = RMSNorm(8, eps=1e-6).bfloat16()
    assert torch.equal(norm(x), F.rms_norm(x, (8,), norm.weight, 1e-6))
