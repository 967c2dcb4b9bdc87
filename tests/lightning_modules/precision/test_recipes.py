"""What a recipe takes over, what it leaves alone, and that nobody notices it by the parameters."""

import copy
import logging
import sys

import pytest
import torch
from torch import nn

from lightning_modules.model.decoder import Decoder
from lightning_modules.model.experts import FeedForward, GroupedExperts, MixtureOfExperts, grouped_linear
from lightning_modules.precision.quantised import QuantisedLinear
from lightning_modules.precision.recipes import (
    RECIPES,
    convert_to_fp8,
    experts_pay,
    linear_pays,
    pays,
    quantised_linears,
    quantised_weights,
    report_conversion,
)

ATTENTION = {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}
FEED_FORWARD = {"gate_proj", "up_proj", "down_proj"}
TOKENS = torch.randint(0, 40, (2, 33), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=RECIPES)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "fp8_tensorwise":
        pytest.importorskip("torchao")
    return request.param


def test_the_paper_s_exceptions_stay_in_high_precision(build_decoder, kind: str) -> None:
    decoder = build_decoder()
    expected = {f"layers.{layer}.self_attn.{name}" for layer in range(3) for name in ATTENTION}
    expected |= {f"layers.0.mlp.{name}" for name in FEED_FORWARD}
    expected |= {f"layers.{layer}.mlp.shared_experts.{name}" for layer in (1, 2) for name in FEED_FORWARD}
    expected |= {f"mtp.0.block.self_attn.{name}" for name in ATTENTION} | {"mtp.0.eh_proj"}
    expected |= {f"mtp.0.block.mlp.shared_experts.{name}" for name in FEED_FORWARD}
    plain = {name: type(module) for name, module in decoder.named_modules()}
    convert_to_fp8(decoder, RECIPES[kind])
    changed = {name for name, module in decoder.named_modules() if type(module) is not plain[name]}
    assert {name for name in changed if isinstance(decoder.get_submodule(name), nn.Linear)} == expected
    for module in decoder.modules():
        assert not isinstance(module, GroupedExperts) or module.grouped_mm is RECIPES[kind].grouped_mm


def test_a_router_s_linear_layers_are_left_alone(build_decoder) -> None:
    decoder = build_decoder(num_expert_segments=2, expert_segment_routing="hierarchical", num_nextn_predict_layers=0)
    assert any(name.endswith("segment_gate") for name, _ in decoder.named_modules())
    assert not any("mlp.gate." in name for name in quantised_linears(decoder))


def test_converting_twice_changes_nothing_more(build_decoder, kind: str) -> None:
    decoder = build_decoder()
    convert_to_fp8(decoder, RECIPES[kind])
    types = [type(module) for module in decoder.modules()]
    convert_to_fp8(decoder, RECIPES[kind])
    assert [type(module) for module in decoder.modules()] == types


def test_weights_of_every_precision_fit_every_other(build_decoder, kind: str) -> None:
    plain = build_decoder()
    converted = copy.deepcopy(plain)
    convert_to_fp8(converted, RECIPES[kind])
    assert {n: (p.shape, p.dtype) for n, p in converted.named_parameters()} == {
        n: (p.shape, p.dtype) for n, p in plain.named_parameters()
    }
    with torch.no_grad():
        for parameter in converted.parameters():
            parameter.mul_(1.5)
    plain.load_state_dict(converted.state_dict())
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), converted.parameters(), strict=True))
    assert next(m.grouped_mm for m in plain.modules() if isinstance(m, GroupedExperts)) is grouped_linear


def test_a_converted_decoder_computes_nearly_the_same(build_decoder, kind: str) -> None:
    # Without routed experts: where scores are close, rounding sends tokens elsewhere.
    plain = build_decoder(first_k_dense_replace=3, num_nextn_predict_layers=0, initializer_range=0.05)
    converted = copy.deepcopy(plain)
    convert_to_fp8(converted, RECIPES[kind])
    weights = torch.randn(2, 33, 40, generator=torch.Generator().manual_seed(1))
    logits = []
    for decoder in (plain, converted):
        output = decoder(TOKENS).logits
        (output * weights).sum().backward()
        logits.append(output.detach())
    assert 1e-3 < (logits[1] - logits[0]).norm() / logits[0].norm() < 0.1
    for (name, parameter), other in zip(plain.named_parameters(), converted.parameters(), strict=True):
        assert (other.grad - parameter.grad).norm() / parameter.grad.norm() < 0.25, name


def test_what_is_faster_in_bf16_stays_as_it_is(build_decoder, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    decoder = build_decoder()
    types = [type(module) for module in decoder.modules() if not isinstance(module, MixtureOfExperts)]
    convert_to_fp8(decoder, RECIPES[kind], pays)
    assert [type(module) for module in decoder.modules() if not isinstance(module, MixtureOfExperts)] == types
    assert all(m.grouped_mm is grouped_linear for m in decoder.modules() if isinstance(m, GroupedExperts))
    with caplog.at_level(logging.INFO):
        report_conversion(decoder, kind, torch.device("cpu"), pays)
    (record,) = caplog.records
    n_weights = len(quantised_weights(decoder))
    assert f"{n_weights} of {n_weights} weights stay BF16" in record.message


def test_layers_pay_by_how_often_a_rounded_number_is_multiplied() -> None:
    of_deepseek_v3 = [(1536, 7168), (24576, 1536), (576, 7168), (32768, 512), (7168, 16384), (2048, 7168)]
    assert all(linear_pays(*shape) for shape in of_deepseek_v3)
    assert not any(linear_pays(*shape) for shape in [(512, 512), (384, 1024), (2048, 256), (512, 2048)])
    assert experts_pay(768)
    assert not experts_pay(192)


def test_one_layer_is_asked_as_its_network_is() -> None:
    for sizes in ((2048, 8192), (1024, 384)):
        with torch.device("meta"):
            network = FeedForward(*sizes)
        assert {pays(network)} == {pays(layer) for layer in network.children()}


def test_a_missing_torchao_is_named_with_the_remedy(build_decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.delitem(sys.modules, "lightning_modules.precision.torchao_linear", raising=False)
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(ImportError, match=r"precision=fp8_tensorwise needs torchao.*pip install torchao==0.18.0"):
        convert_to_fp8(build_decoder(), RECIPES["fp8_tensorwise"])


def test_emulation_says_so_in_one_line(build_decoder, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    decoder: Decoder = build_decoder()
    with caplog.at_level(logging.INFO):
        report_conversion(decoder, kind, torch.device("cpu"))
    (record,) = caplog.records
    # Three dense layers' worth of attention and more, and two stacks in each of three expert layers.
    n_weights = len(quantised_linears(decoder)) + 2 * 3
    assert f"precision={kind}: {n_weights} of {n_weights} weights are multiplied by emulation on cpu" in record.message


def test_nothing_is_said_where_kernels_run(
    build_decoder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_modules.precision import quantised

    monkeypatch.setattr(quantised.kernels, "available", lambda device: True)
    monkeypatch.setattr(quantised.kernels, "fits", lambda out_features, in_features: True)
    decoder = build_decoder()
    report_conversion(decoder, "fp8_deepseek", torch.device("cpu"))
    assert not caplog.records


def test_blockwise_layers_are_plain_layers_but_for_their_products(build_decoder) -> None:
    decoder = build_decoder()
    before = decoder.layers[0].mlp.down_proj
    weight = before.weight
    convert_to_fp8(decoder, RECIPES["fp8_deepseek"])
    after = decoder.layers[0].mlp.down_proj
    assert isinstance(after, QuantisedLinear)
    assert after is before
    assert after.weight is weight
