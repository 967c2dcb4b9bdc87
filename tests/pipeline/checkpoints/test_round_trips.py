"""Any layout to any other and back: the same bits, over architectures drawn at random."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.precision.emulation import E4M3
from pipeline.checkpoints.architecture_match import OpenOptions
from pipeline.checkpoints.conversion import ConversionOptions, convert
from pipeline.checkpoints.names import is_linear
from pipeline.checkpoints.quantisation import FP8_RELATIVE_ERROR, FP8_SMALLEST_ERROR
from pipeline.checkpoints.registry import WRITERS, open_checkpoint
from pipeline.checkpoints.slices import same_bits

# Of BF16, which a dequantised number is rounded to: half a unit in the last of eight places.
BF16_RELATIVE_ERROR = 2.0**-8


@st.composite
def architectures(draw: st.DrawFn, depth: int = 2) -> DecoderConfig:
    """Decoders of every kind that all layouts can hold; sides are rarely multiples of 128."""
    n_layers, n_group = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2]))
    n_heads = draw(st.sampled_from([2, 4]))
    return DecoderConfig(
        vocab_size=2 * draw(st.integers(2, 20)),
        hidden_size=draw(st.sampled_from([8, 24, 128, 136, 264])),
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        q_lora_rank=draw(st.sampled_from([None, 12, 130])),
        kv_lora_rank=draw(st.sampled_from([8, 129])),
        qk_nope_head_dim=draw(st.sampled_from([0, 6])),
        qk_rope_head_dim=draw(st.sampled_from([2, 4])),
        v_head_dim=draw(st.sampled_from([3, 68])),
        intermediate_size=draw(st.sampled_from([8, 130])),
        moe_intermediate_size=draw(st.sampled_from([8, 136])),
        first_k_dense_replace=draw(st.integers(0, n_layers)),
        n_routed_experts=n_group * draw(st.sampled_from([2, 4])),
        n_shared_experts=draw(st.integers(0, 2)),
        num_experts_per_tok=1,
        n_group=n_group,
        topk_group=1,
        scoring_func="sigmoid",
        norm_topk_prob=True,
        routed_scaling_factor=2.5,
        rope_theta=10000.0,
        rms_norm_eps=1e-6,
        max_position_embeddings=64,
        tie_word_embeddings=draw(st.booleans()),
        initializer_range=0.02,
        num_nextn_predict_layers=draw(st.integers(0, depth)),
        rope_interleave=draw(st.booleans()),
        rope_scaling=draw(
            st.sampled_from([None, {"factor": 4, "original_max_position_embeddings": 32, "mscale_all_dim": 0.5}])
        ),
    )


def travel(source: Path, folder: Path, layouts: list[str], **options) -> list[Path]:
    """Convert from layout to layout; returns where each checkpoint lies."""
    places = [source]
    for index, layout in enumerate(layouts):
        target = folder / f"{index}-{layout}"
        convert(open_checkpoint(places[-1]), target, layout, ConversionOptions(shard_bytes=50_000, **options))
        places.append(target)
    return places


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert right[name].dtype == tensor.dtype, name
        assert same_bits(tensor, right[name]), name


@settings(max_examples=6, deadline=None)
@given(config=architectures(), layouts=st.permutations([name for name in WRITERS if name != "deepseek"]))
def test_training_and_published_layouts(
    random_weights, save_training, read_all, config: DecoderConfig, layouts: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = save_training(folder / "trained.ckpt", config, random_weights(config))
        expected = read_all(source)
        for place in travel(source, folder, [*layouts, layouts[0], "lightning"]):
            opened = open_checkpoint(place)
            assert opened.config == config
            assert opened.initialised + opened.missing + opened.unexpected == ()
            assert_same(expected, read_all(opened))


@settings(max_examples=6, deadline=None)
@given(config=architectures(depth=0), layouts=st.permutations(list(WRITERS)), n_ranks=st.sampled_from([1, 2]))
def test_all_layouts_without_prediction_modules(
    random_weights, save_training, read_all, config: DecoderConfig, layouts: list[str], n_ranks: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = save_training(folder / "trained.ckpt", config, random_weights(config))
        expected = read_all(source)
        for place in travel(source, folder, [*layouts, layouts[0]], n_model_parallel=n_ranks):
            assert open_checkpoint(place).config == config
            assert_same(expected, read_all(place))


@settings(max_examples=5, deadline=None)
@given(config=architectures())
def test_fp8_over_every_layout_that_holds_it(random_weights, save_training, read_all, config: DecoderConfig) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = save_training(folder / "trained.ckpt", config, random_weights(config))
        exact = read_all(source)
        conversion = convert(open_checkpoint(source), folder / "fp8", "huggingface", ConversionOptions(dtype="fp8"))
        quantised = read_all(folder / "fp8")
        assert {n for n, t in quantised.items() if t.dtype == E4M3} == {n for n in exact if is_linear(n)}
        assert conversion.quantisation.keys() == {n for n in exact if is_linear(n)}
        # Bits and factors travel on as they are.
        drop = ("mtp",) if config.num_nextn_predict_layers else ()
        last = travel(folder / "fp8", folder, ["huggingface", "deepseek", "huggingface"], drop=drop)[-1]
        kept = read_all(last)
        assert_same({name: tensor for name, tensor in quantised.items() if name in kept}, kept)
        convert(open_checkpoint(folder / "fp8"), folder / "back", "lightning", ConversionOptions(dtype="bfloat16"))
        for tensor_name, tensor in read_all(folder / "back").items():
            if is_linear(tensor_name):
                assert_within_bound(exact[tensor_name], tensor, quantised[f"{tensor_name}.scale"])
            else:
                assert same_bits(exact[tensor_name], tensor), tensor_name


def assert_within_bound(exact: Tensor, rounded: Tensor, factors: Tensor) -> None:
    factor = factors.repeat_interleave(128, 0).repeat_interleave(128, 1)[: exact.shape[0], : exact.shape[1]]
    magnitude, moved = exact.float().abs(), (rounded.float() - exact.float()).abs()
    quantising = torch.maximum(magnitude * FP8_RELATIVE_ERROR, factor * FP8_SMALLEST_ERROR)
    assert bool((moved <= (quantising + (magnitude + quantising) * BF16_RELATIVE_ERROR) * (1 + 1e-5)).all())


@pytest.mark.parametrize(
    "changes",
    [
        {"num_expert_segments": 2},
        {"num_expert_segments": 2, "expert_segment_routing": "hierarchical"},
        {"num_expert_segments": 2, "moe_intermediate_size": 24, "expert_segment_sizes": (8, 16)},
    ],
)
def test_segments_of_experts_travel_between_training_layouts(
    tiny_config: DecoderConfig, random_weights, save_training, read_all, tmp_path: Path, changes: dict
) -> None:
    config = replace(tiny_config, **changes)
    source = save_training(tmp_path / "trained.ckpt", config, random_weights(config))
    for place in travel(source, tmp_path, ["distributed", "lightning", "distributed"]):
        assert open_checkpoint(place).config == config
        assert_same(read_all(source), read_all(place))


def test_legacy_pickles_go_to_every_layout(
    tiny_config: DecoderConfig, random_weights, read_all, tmp_path: Path
) -> None:
    config = replace(tiny_config, num_nextn_predict_layers=0)
    weights = {name: tensor for name, tensor in random_weights(config).items() if "expert_loads" not in name}
    old = {f"module.{name.replace('o_proj', 'out_proj')}": tensor for name, tensor in weights.items()}
    torch.save({"model_state_dict": old}, tmp_path / "old.pt")
    opened = open_checkpoint(tmp_path / "old.pt", options=OpenOptions(config=config))
    expected = read_all(opened)
    assert torch.equal(expected["model.layers.2.self_attn.o_proj.weight"], weights["layers.2.self_attn.o_proj.weight"])
    for layout in WRITERS:
        convert(opened, tmp_path / layout, layout, ConversionOptions())
        assert_same(expected, read_all(tmp_path / layout))


def test_fp32_is_rounded_once_and_no_more(
    tiny_config: DecoderConfig, random_weights, save_training, read_all, tmp_path: Path
) -> None:
    weights = random_weights(tiny_config, torch.float32)
    source = save_training(tmp_path / "trained.ckpt", tiny_config, weights)
    exact = read_all(source)
    conversion = convert(open_checkpoint(source), tmp_path / "bf16", "huggingface", ConversionOptions(dtype="bfloat16"))
    rounded = read_all(tmp_path / "bf16")
    for name, tensor in exact.items():
        is_kept = name.endswith(("e_score_correction_bias", "expert_loads"))
        assert torch.equal(rounded[name], tensor if is_kept else tensor.bfloat16()), name
        assert (name in conversion.quantisation) != is_kept
    widened = travel(tmp_path / "bf16", tmp_path, ["lightning"], dtype="float32")[-1]
    assert all(torch.equal(tensor, rounded[name].float()) for name, tensor in read_all(widened).items())
