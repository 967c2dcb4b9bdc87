from dataclasses import replace

import pytest
import torch

from lightning_modules.model.attention import LatentAttention
from lightning_modules.model.attention_inputs import causal_inputs, packed_inputs
from lightning_modules.model.document_borders import DocumentBorders
from lightning_modules.model.rotary import rotate
from tests.conftest import TINY

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels run on a GPU")


@on_gpu
@pytest.mark.parametrize("interleaves", [True, False])
def test_heads_are_rotated_and_joined_as_by_torch(interleaves: bool) -> None:
    from lightning_modules.model.kernels.heads import join_keys, rotate_queries

    torch.manual_seed(0)
    query = torch.randn(2, 7, 3, 24 + 8, device="cuda", requires_grad=True)
    expanded = torch.randn(2, 7, 3, 24 + 16, device="cuda", requires_grad=True)
    shared = torch.randn(2, 7, 12, device="cuda", requires_grad=True)
    cos, sin = (torch.randn(2, 7, 4, device="cuda") for _ in range(2))
    key, tail = expanded[..., :24], shared[..., 4:]
    rotated = [
        rotate(x.transpose(1, 2), cos[:, None], sin[:, None], interleaves) for x in (query[..., 24:], tail[:, :, None])
    ]
    pairs = [
        (
            rotate_queries(query, cos, sin, interleaves),
            torch.cat((query[..., :24], rotated[0].transpose(1, 2)), dim=-1),
        ),
        (
            join_keys(key, tail, cos, sin, interleaves),
            torch.cat((key, rotated[1].transpose(1, 2).expand(-1, -1, 3, -1)), dim=-1),
        ),
    ]
    for mine, reference in pairs:
        torch.testing.assert_close(mine, reference)
    gradient = torch.randn_like(pairs[0][0])
    inputs = (query, expanded, shared)
    mine, reference = (
        torch.autograd.grad([pair[side] for pair in pairs], inputs, [gradient, gradient]) for side in (0, 1)
    )
    torch.testing.assert_close(mine, reference)


@on_gpu
@pytest.mark.parametrize("packs", [False, True])
def test_attention_is_the_same_with_kernels(packs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = replace(TINY, qk_rope_head_dim=16)
    attention = LatentAttention(config).to("cuda", torch.bfloat16)
    hidden = torch.randn(2, 24, config.hidden_size, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    inputs = causal_inputs(config, 2, 24, hidden.device)
    if packs:
        ids = torch.arange(24, device="cuda").div(10, rounding_mode="floor").expand(2, -1)
        beginnings = torch.tensor([0, 10, 20, 24, 34, 44, 48], dtype=torch.int32, device="cuda")
        inputs = packed_inputs(config, ids, borders=DocumentBorders(beginnings, 10))
    weights = list(attention.parameters())
    results = []
    for uses_kernels in (True, False):
        monkeypatch.setattr(LatentAttention, "_has_kernels", lambda self, hidden, inputs, uses=uses_kernels: uses)
        output = attention(hidden, inputs)
        results.append([output, *torch.autograd.grad(output.float().square().sum(), [hidden, *weights])])
    for mine, reference in zip(*results, strict=True):
        torch.testing.assert_close(mine, reference, rtol=0.02, atol=0.02 * float(reference.abs().max()))
