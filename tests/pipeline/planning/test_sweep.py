from collections import Counter
from dataclasses import replace

import pytest

from lightning_modules.configuration import OptimizerConfig
from lightning_modules.model.counting import build_on_meta
from lightning_modules.model.recompute_kinds import RECOMPUTE_KINDS
from lightning_modules.optimizer import build_optimizer
from lightning_modules.parallel.configuration import ParallelConfig
from pipeline.planning import planner
from pipeline.planning.memory import GIB, static_bytes, step_memory
from pipeline.planning.planner import memory_by_recompute, plan, plan_best
from pipeline.planning.rehearsals import Rehearsals
from pipeline.planning.settings import GpuConfig, Layout
from pipeline.planning.sweep import Candidate, least_bytes, possible_layouts, sharing_sizes, sweep
from pipeline.planning.terminal import terminal_text


@pytest.fixture(scope="module")
def training(training):
    """One block of each kind: how layouts are compared does not depend on how many there are."""
    return replace(training, decoder=replace(training.decoder, num_hidden_layers=2, first_k_dense_replace=1))


def test_every_layout_divides(decoder_config):
    layouts = list(possible_layouts(decoder_config, 2, 4))
    assert all(layout.world_size == 8 and decoder_config.n_routed_experts % layout.ep == 0 for layout in layouts)
    assert {(layout.dp_replicate, layout.ep) for layout in layouts} == {
        (1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (2, 2), (2, 4),
    }  # fmt: skip


def test_ranks_that_share_windows_stay_together(decoder_config):
    layouts = list(possible_layouts(decoder_config, 2, 4, cp=4))
    assert {(layout.dp_replicate, layout.dp_shard, layout.ep) for layout in layouts} == {
        (1, 2, 1),
        (1, 1, 2),
        (2, 1, 1),
    }
    assert all(layout.world_size == 8 for layout in layouts)


def test_a_layout_planned_by_name_takes_what_the_sweep_says(training, gpu):
    training = replace(training, accumulate_grad_batches=3)
    layouts = list(possible_layouts(training.decoder, 2, 2))
    rows = sweep(training, gpu, layouts, Rehearsals(gpu), "auto")
    assert len({row.total for row in rows}) > 3
    for row in rows[::6]:
        named = replace(training, reduce_every_micro_batch=row.reduce_every_micro_batch)
        by_name = memory_by_recompute(named, row.layout, gpu, Rehearsals(gpu))[row.recompute]
        assert by_name.total == row.total


def test_what_was_counted_comes_before_what_is_only_bounded(training, gpu):
    layouts = list(possible_layouts(training.decoder, 2, 2))[::2]
    least = sorted(least_bytes(training, layout, gpu) for layout in layouts)
    # Room for what the smallest layout cannot do without, and for no step.
    tight = replace(gpu, memory_gib=least[0] / GIB)
    rows = sweep(training, tight, layouts, Rehearsals(tight), "auto")
    assert not any(row.fits for row in rows)
    bounded = [row.memory is None for row in rows]
    assert not bounded[0]
    assert bounded[-1]
    assert bounded == sorted(bounded)


def test_the_best_layout_fits_and_its_ranks_receive_least_from_other_machines(training, gpu):
    report = plan(replace(training, batch_size=8), ParallelConfig(ep=2, nodes=2, gpus_per_node=2), gpu)
    assert report["fits"]
    assert report["recommended"] == report["sweep"][0]
    assert report["recommended"]["fits"]
    assert report["recommended"]["inter_node_gib"] == min(row["inter_node_gib"] for row in report["sweep"])
    assert {row["recompute"] for row in report["sweep"]} == {"none"}
    kept = [report["by_recompute"][kind]["activations_gib"] for kind in RECOMPUTE_KINDS]
    assert sorted(kept, reverse=True) == kept
    assert report["by_recompute"]["none"]["total_gib"] == report["memory"]["total_gib"]
    assert "Recommended: strategy.dp_replicate=" in terminal_text(report)


def test_recompute_is_recommended_where_nothing_fits_without(training):
    training = replace(training, batch_size=16, sequence_length=256)
    layout = Layout(1, 1, 1, 1)
    gpu = GpuConfig("large", 10.0, context_gib=0)
    without, recomputing = (
        step_memory(one, layout, gpu, Rehearsals(gpu).of(one, layout)).total
        for one in (replace(training, recompute=kind) for kind in ("activations", "blocks"))
    )
    middle = replace(gpu, memory_gib=(without + recomputing) / 2 / GIB)
    report = plan(training, ParallelConfig(nodes=1, gpus_per_node=1), middle)
    assert not report["fits"]
    assert report["recommended"]["fits"]
    assert report["recommended"]["recompute"] == "blocks"


def test_gradients_are_reduced_every_micro_batch_where_whole_ones_do_not_fit(training, gpu):
    training, layouts = replace(training, accumulate_grad_batches=8), [Layout(1, 4, 1, 4)]
    rows = sweep(training, gpu, layouts, Rehearsals(gpu), "auto")
    assert [row.reduce_every_micro_batch for row in rows] == [False, True], "it is more traffic"
    whole, sharded = (row.total for row in rows)
    assert sharded < whole
    between = replace(gpu, memory_gib=(whole + sharded) / 2 / GIB)
    assert sweep(training, between, layouts, Rehearsals(between), "auto")[0].reduce_every_micro_batch


def test_what_does_not_fit_at_all_is_said_so(training):
    report = plan(training, ParallelConfig(nodes=1, gpus_per_node=1), GpuConfig("small", 0.001, context_gib=0))
    assert not report["fits"]
    assert not report["recommended"]["fits"]
    assert report["reason"].startswith("None of ")
    assert "trainer.batch_size" in report["reason"]


def test_the_parts_make_up_the_total(training, gpu):
    layout = Layout(1, 2, 2, 4)
    memory = step_memory(training, layout, gpu, Rehearsals(gpu).of(training, layout))
    assert memory.total == memory.fullest.parts.total() + memory.fragmentation + memory.context
    assert memory.context == gpu.context_gib * GIB


def test_a_steps_windows_decide_how_many_ranks_share_one(training, gpu):
    """Four ranks of a machine make 6 windows a step 1.5 times, and 3 times if two share each."""
    training = replace(training, global_batch=6, batch_size=1)
    assert sharing_sizes(training, 4, 4, asked=1) == [2, 4]
    assert sharing_sizes(training, 4, 2, asked=1) == [2]
    assert sharing_sizes(replace(training, global_batch=None), 4, 4, asked=4) == [4]
    with pytest.raises(ValueError, match=r"global_batch is 7: 4 ranks do not make it up .* nodes or gpus_per_node"):
        sharing_sizes(replace(training, global_batch=7), 4, 2, asked=1)
    report = plan_best(training, ParallelConfig(nodes=1, gpus_per_node=4), gpu)
    assert report["layout"]["cp"] == report["recommended"]["cp"] == 2
    assert report["recommended"]["accumulate_grad_batches"] == report["training"]["accumulate_grad_batches"] == 3
    assert report["training"]["windows_per_step"] == 6
    assert report["memory"]["total_gib"] == report["recommended"]["total_gib"]
    with pytest.raises(ValueError, match=r"no multiple of 4 ranks × trainer.batch_size 1 = 4; .* \(strategy.cp\)"):
        plan(training, ParallelConfig(nodes=1, gpus_per_node=4), gpu)


def test_more_ranks_share_a_window_only_where_none_fits_otherwise(monkeypatch, training, gpu):
    tried = []

    def sweep_of(training, gpu, layouts, rehearsals, dispatch):
        tried.append(layouts[0].cp)
        return [Candidate(layouts[0], 4, "none", False, None, None, 1, fits=layouts[0].cp == 2)]

    monkeypatch.setattr(planner, "sweep", sweep_of)
    strategy = ParallelConfig(nodes=1, gpus_per_node=4)
    best = planner.candidates_of(replace(training, global_batch=16), strategy, gpu, Rehearsals(gpu))[0]
    assert tried == [1, 2]
    assert best.fits


def test_ranks_that_no_layout_divides_over_are_refused(training, gpu):
    with pytest.raises(ValueError, match="over no layout of 7 ranks: model.n_routed_experts"):
        plan_best(training, ParallelConfig(nodes=1, gpus_per_node=7), gpu)


def test_muon_keeps_one_moment_of_hidden_matrices(training, gpu):
    layout = Layout(1, 2, 1, 2)
    adamw, muon = (static_bytes(replace(training, optimizer=kind), layout, gpu) for kind in ("adamw", "muon"))
    decoder = build_on_meta(training.decoder)
    groups = build_optimizer(decoder, OptimizerConfig(1.0, (0.9, 0.95), 0.0, 1e-8, kind="muon")).param_groups
    hidden = sum(p.numel() for group in groups if group["n_stacked"] for p in group["params"])
    assert adamw["optimizer"] - muon["optimizer"] == 4 * hidden // 2
    assert adamw - Counter(optimizer=adamw["optimizer"]) == muon - Counter(optimizer=muon["optimizer"])
