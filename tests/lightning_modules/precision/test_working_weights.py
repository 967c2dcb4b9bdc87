import gc
import weakref
from dataclasses import replace

import pytest
import torch

from lightning_modules import fused_adamw
from lightning_modules.fused_adamw import FusedAdamW
from lightning_modules.model.decoder import Decoder
from lightning_modules.precision.emulation import quantise_128x128
from lightning_modules.precision.kernels.blockwise import available, squares_of
from lightning_modules.precision.quantised import KeepsCopies, QuantisedExperts, QuantisedFeedForward, QuantisedLinear
from lightning_modules.precision.recipes import RECIPES, convert_to_fp8
from lightning_modules.precision.working_weights import WorkingWeights
from tests.conftest import TINY


def build(device: str = "cpu", **changes) -> tuple[Decoder, WorkingWeights]:
    with torch.device(device):
        masters = Decoder(replace(TINY, **changes))
    masters.initialize_weights(seed=3)
    return masters, WorkingWeights(masters, lambda decoder: None)


def backward(working: WorkingWeights, seed: int) -> None:
    device = next(working.decoder.parameters()).device
    tokens = torch.randint(0, TINY.vocab_size, (2, 12), generator=torch.Generator().manual_seed(seed)).to(device)
    output = working.decoder(tokens)
    (output.logits.float().square().mean() + output.ahead_logits[0].float().square().mean()).backward()


def test_weights_are_the_masters_rounded_and_routers_are_exact() -> None:
    _, working = build()
    for (name, weight), (master, _) in zip(working.decoder.named_parameters(), working.pairs, strict=True):
        expected = torch.float32 if name.endswith("mlp.gate.weight") else torch.bfloat16
        assert weight.dtype == expected, name
        assert torch.equal(weight, master.to(expected))


def test_a_change_of_the_masters_arrives_when_asked_for() -> None:
    masters, working = build()
    with torch.no_grad():
        masters.lm_head.weight.fill_(0.5)
    assert not bool((working.decoder.lm_head.weight == 0.5).any())
    working.refresh()
    assert bool((working.decoder.lm_head.weight == 0.5).all())


def test_routing_biases_are_the_masters_own() -> None:
    masters, working = build()
    router = masters.routers()[0]
    router.update_bias(torch.arange(8.0), speed=0.1)
    assert torch.equal(working.decoder.routers()[0].e_score_correction_bias, router.e_score_correction_bias)
    assert bool(router.e_score_correction_bias.any())


def test_a_tied_head_stays_tied() -> None:
    _, working = build(tie_word_embeddings=True)
    assert working.decoder.lm_head.weight is working.decoder.embed_tokens.weight


def test_one_backward_pass_hands_its_gradients_over_as_they_are() -> None:
    _, working = build()
    backward(working, seed=0)
    gradients = [weight.grad for _, weight in working.pairs]
    working.hand_over_gradients(accumulates=False)
    for (master, weight), gradient in zip(working.pairs, gradients, strict=True):
        assert master.grad is gradient
        assert weight.grad is None


def test_gradients_handed_over_once_share_memory_and_sums_do_not() -> None:
    """A backward pass that overwrites what it has left, as a recording does, changes no sum."""
    for accumulates, is_shared in ((False, True), (True, False)):
        masters, working = build()
        weight, master = working.decoder.lm_head.weight, masters.lm_head.weight
        gradient = torch.ones_like(weight)
        weight.grad = gradient
        working.hand_over_gradients(accumulates)
        assert weight.grad is None
        assert master.grad is not None
        assert (master.grad.data_ptr() == gradient.data_ptr()) == is_shared
        gradient.fill_(5.0)
        assert master.grad.flatten()[0] == (5.0 if is_shared else 1.0)


def test_the_fused_step_lets_the_last_gradients_go(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    masters, working = build()
    fused = FusedAdamW(masters.parameters(), 1e-2, (0.9, 0.95), 1e-8, torch.float32, working)
    # The norm is a kernel's, and tells of what gradients it has looked at.
    monkeypatch.setattr(fused_adamw._Kind, "squared_norm", lambda kind: torch.tensor(float(len(kind._gradients))))
    backward(working, seed=0)
    working.hand_over_gradients(accumulates=False)
    handed_over = [weakref.ref(master.grad) for master in masters.parameters() if master.grad is not None]
    assert fused.clip(1.0) == len(handed_over) ** 0.5
    fused.zero_grad()
    gc.collect()
    assert [gradient for gradient in handed_over if gradient() is not None] == []


def test_several_backward_passes_add_up_in_fp32() -> None:
    _, working = build()
    expected: list[torch.Tensor] = []
    for seed in range(3):
        backward(working, seed)
        gradients = [weight.grad.float() for _, weight in working.pairs]
        expected = gradients if not expected else [a + b for a, b in zip(expected, gradients, strict=True)]
        working.hand_over_gradients(accumulates=True)
    for (master, _), total in zip(working.pairs, expected, strict=True):
        assert master.grad.dtype == torch.float32
        assert torch.equal(master.grad, total)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels run on a GPU")
@pytest.mark.parametrize("moments", [torch.float32, torch.bfloat16])
def test_the_fused_step_equals_torchs_own_with_clipping(moments: torch.dtype) -> None:
    masters, working = build("cuda")
    reference = [master.detach().clone().requires_grad_() for master in masters.parameters()]

    def groups(parameters):
        parameters = list(parameters)
        return [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]

    fused = FusedAdamW(groups(masters.parameters()), 1e-2, (0.9, 0.95), 1e-8, moments, working)
    plain = torch.optim.AdamW(groups(reference), lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
    for step in range(4):
        for (_, weight), other in zip(working.pairs, reference, strict=True):
            weight.grad = (torch.randn_like(weight, dtype=torch.float32) * 10.0 ** (step - 2)).to(weight.dtype)
            other.grad = weight.grad.to(torch.float32, copy=True)
        working.hand_over_gradients(accumulates=False)
        norm = fused.clip(1.0)
        torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(reference, 1.0), rtol=1e-5, atol=0)
        fused.step()
        plain.step()
    tolerance = 2e-6 if moments == torch.float32 else 2e-3
    for (master, weight), other in zip(working.pairs, reference, strict=True):
        torch.testing.assert_close(master, other, rtol=0, atol=tolerance)
        assert torch.equal(weight, master.to(weight.dtype))
    plain.load_state_dict(fused.state_dict())
    fused.load_state_dict(plain.state_dict())


@pytest.mark.skipif(not torch.cuda.is_available() or not available("cuda"), reason="needs a Hopper GPU")
@pytest.mark.parametrize("moments", [torch.float32, torch.bfloat16])
def test_a_step_leaves_quantised_copies_of_what_it_stepped(moments: torch.dtype) -> None:
    with torch.device("cuda"):
        masters = Decoder(replace(TINY, hidden_size=144, moe_intermediate_size=80, intermediate_size=256))
    masters.initialize_weights(seed=3)
    working = WorkingWeights(masters, lambda decoder: convert_to_fp8(decoder, RECIPES["fp8_deepseek"]))
    plain = [master.detach().clone().requires_grad_() for master in masters.parameters()]
    fused = FusedAdamW(
        [{"params": list(masters.parameters()), "weight_decay": 0.1}], 1e-2, (0.9, 0.95), 1e-8, moments, working
    )
    reference = torch.optim.AdamW(plain, lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for _ in range(3):
        for (_, weight), other in zip(working.pairs, plain, strict=True):
            weight.grad = torch.randn(weight.shape, device="cuda").to(weight.dtype)
            other.grad = weight.grad.to(torch.float32, copy=True)
        working.hand_over_gradients(accumulates=False)
        fused.clip(1.0)
        torch.nn.utils.clip_grad_norm_(plain, 1.0)
        fused.step()
        reference.step()
    tolerance = 2e-6 if moments == torch.float32 else 2e-3
    for (master, _), other in zip(working.pairs, plain, strict=True):
        torch.testing.assert_close(master, other, rtol=0, atol=tolerance)
    modules = [m for m in working.decoder.modules() if isinstance(m, KeepsCopies) and m.copies]
    assert {QuantisedLinear, QuantisedFeedForward, QuantisedExperts} == set(map(type, modules))
    assert len(working.quantised) == sum(len(module.parameters_of(module)) for module in modules)
    for name, module in working.decoder.named_modules():
        if isinstance(module, KeepsCopies):
            weights = module.weights_of(masters.get_submodule(name))
            for weight, copy in zip(weights, module.quantised(), strict=bool(module.copies)):
                copies = copy.layouts
                expected = quantise_128x128(weight)
                assert torch.equal(copies.values.float(), expected.values.float())
                assert torch.equal(copies.transposed.mT.float(), expected.values.float())
                assert torch.equal(copies.scales, expected.scales)
                assert torch.equal(copies.transposed_scales.mT, expected.scales)


@pytest.mark.skipif(not torch.cuda.is_available() or not available("cuda"), reason="needs a Hopper GPU")
@pytest.mark.parametrize("accumulates", [False, True])
def test_the_norm_is_that_of_gradients_which_products_left(accumulates: bool) -> None:
    with torch.device("cuda"):
        masters = Decoder(replace(TINY, hidden_size=144, moe_intermediate_size=80, intermediate_size=256))
    masters.initialize_weights(seed=3)
    working = WorkingWeights(masters, lambda decoder: convert_to_fp8(decoder, RECIPES["fp8_deepseek"]))
    fused = FusedAdamW(masters.parameters(), 1e-2, (0.9, 0.95), 1e-8, torch.bfloat16, working)
    for seed in range(2 if accumulates else 1):
        tokens = torch.randint(TINY.vocab_size, (2, 65), generator=torch.Generator().manual_seed(seed)).cuda()
        with torch.autocast("cuda", torch.bfloat16):
            losses = working.decoder.losses(tokens[:, :-1], [tokens[:, 1:]] * (1 + TINY.num_nextn_predict_layers))
        sum(losses.sums).backward()
        working.hand_over_gradients(accumulates)
    gradients = [master.grad for master in masters.parameters() if master.grad is not None]
    assert any(squares_of(gradient) is not None for gradient in gradients) != accumulates
    expected = torch.stack([gradient.double().square().sum() for gradient in gradients]).sum().sqrt()
    torch.testing.assert_close(fused.clip(1.0).double(), expected, rtol=1e-3, atol=0)
