from dataclasses import replace

import pytest

from pipeline.planning.communication import Traffic, step_traffic
from pipeline.planning.settings import Layout
from pipeline.planning.shards import parameter_units


def test_one_rank_receives_nothing(training):
    assert step_traffic(training, Layout(1, 1, 1, 1), "auto", has_fp8=True).total == Traffic()


def test_tokens_travel_to_experts_and_back(training):
    traffic = step_traffic(training, Layout(1, 1, 8, 4), "auto", has_fp8=True)
    # 4 mixtures and that of the prediction module, 2 × 96 tokens of 64 BF16 numbers, each to 2 of 8 experts.
    n_bytes = 5 * 2 * 96 * 2 * 64 * 2
    # Of eight ranks three others are on the same machine, and four on another.
    assert traffic.dispatch == Traffic(n_bytes * 3 // 8, n_bytes * 4 // 8)
    assert traffic.combine == traffic.dispatch
    assert traffic.all_to_all.total == 4 * traffic.dispatch.total


def test_recomputed_blocks_dispatch_once_more(training):
    layout = Layout(1, 1, 8, 4)
    plain, again = (
        step_traffic(replace(training, recompute=kind), layout, "auto", has_fp8=True)
        for kind in ("activations", "blocks")
    )
    assert (again.dispatch, again.combine) == (plain.dispatch.times(2), plain.combine.times(2))
    assert again.all_to_all_backward == plain.all_to_all_backward


def test_few_ranks_gather_tokens(training):
    traffic = step_traffic(training, Layout(1, 1, 2, 2), "auto", has_fp8=True)
    assert traffic.dispatch.total == traffic.combine.total == 5 * 2 * 96 * 64 * 2
    # By rows, each token would go to two experts, every other of them here.
    assert step_traffic(training, Layout(1, 1, 2, 2), "all_to_all", has_fp8=True).dispatch == traffic.dispatch
    eight = step_traffic(training, Layout(1, 1, 8, 8), "all_gather", has_fp8=True)
    assert eight.dispatch.total == 7 * traffic.dispatch.total


def test_fp8_halves_one_of_four_ways(training):
    layout, training = Layout(1, 1, 8, 8), replace(training, precision="fp8_deepseek")
    plain, fp8 = (step_traffic(training, layout, "auto", has_fp8) for has_fp8 in (False, True))
    assert step_traffic(training, layout, "all_to_all", has_fp8=True) == plain
    assert fp8.dispatch.total == pytest.approx(plain.dispatch.total * (1 + 4 / 128) / 2, rel=1e-3)
    assert (fp8.combine, fp8.all_to_all_backward) == (plain.combine, plain.all_to_all_backward)


def test_parameters_are_gathered_twice_and_gradients_reduced_once(training):
    layout = Layout(1, 4, 1, 2)
    traffic = step_traffic(training, layout, "auto", has_fp8=True)
    units = parameter_units(training.decoder)
    blocks = sum(unit.gathered_bytes(layout, 2) for unit in units if unit.block)
    outside = 2 * next(unit.n_parameters for unit in units if not unit.block)
    assert traffic.all_gather.total == pytest.approx((2 * blocks + outside) * 3 / 4, rel=1e-3)
    # The two ranks of a machine fetch the other machine's half together.
    assert traffic.all_gather.inter_node == pytest.approx((2 * blocks + outside) / 4, rel=1e-3)
    gradients = blocks + outside
    assert traffic.reduce_scatter.total == pytest.approx(gradients * 3 / 4, rel=1e-3)
    # But each its own part of the gradients there.
    assert traffic.reduce_scatter.inter_node == pytest.approx(gradients / 2, rel=1e-3)
    accumulated = step_traffic(replace(training, accumulate_grad_batches=3), layout, "auto", has_fp8=True)
    assert accumulated.all_gather.total == pytest.approx(3 * traffic.all_gather.total, rel=1e-3)
    # Once, but summed up in FP32.
    assert accumulated.reduce_scatter.total == pytest.approx(3 * sum(u.n_parameters for u in units), rel=1e-3)
    every = replace(training, accumulate_grad_batches=3, reduce_every_micro_batch=True)
    # Every time, but as they are.
    assert step_traffic(every, layout, "auto", has_fp8=True).reduce_scatter == traffic.reduce_scatter.times(3)


def test_replicas_exchange_gradients_alone(training):
    traffic = step_traffic(training, Layout(4, 1, 1, 1), "auto", has_fp8=True)
    gradients = 4 * sum(unit.n_parameters for unit in parameter_units(training.decoder))
    assert traffic.total == traffic.all_reduce
    # Around a ring, once to reduce and once to gather.
    assert traffic.all_reduce.inter_node == pytest.approx(2 * gradients * 3 / 4, rel=1e-3)


def test_ranks_that_share_windows_gather_what_attention_compressed(training):
    alone, shared = (step_traffic(training, Layout(1, 2, 1, 4, cp), "auto", has_fp8=True) for cp in (1, 2))
    # 6 layers and the prediction module: half of 2 × 96 tokens, forwards, once more backwards, and their gradients.
    config = training.decoder
    assert shared.context == Traffic(3 * 7 * (config.kv_lora_rank + config.qk_rope_head_dim) * 2 * 96 * 2 // 2)
    assert alone.context == Traffic()
