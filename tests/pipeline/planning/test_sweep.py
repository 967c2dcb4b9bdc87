from dataclasses import replace

from lightning_modules.model.recompute_kinds import RECOMPUTE_KINDS
from lightning_modules.parallel.configuration import ParallelConfig
from pipeline.planning.memory import GIB, step_memory
from pipeline.planning.planner import memory_by_recompute, plan
from pipeline.planning.rehearsals import Rehearsals
from pipeline.planning.settings import GpuConfig, Layout
from pipeline.planning.sweep import least_bytes, possible_layouts, sweep
from pipeline.planning.terminal import terminal_text


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
    for row in rows[::3]:
        named = replace(training, reduce_every_micro_batch=row.reduce_every_micro_batch)
        by_name = memory_by_recompute(named, row.layout, gpu, Rehearsals(gpu))[row.recompute]
        assert by_name.total == row.total


def test_what_was_counted_comes_before_what_is_only_bounded(training, gpu):
    layouts = list(possible_layouts(training.decoder, 2, 2))
    least = sorted(least_bytes(training, layout, gpu) for layout in layouts)
    # Room for what half of the layouts cannot do without, and for no step.
    tight = replace(gpu, memory_gib=least[len(least) // 2] / GIB)
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
