from dataclasses import replace

from lightning_modules.parallel.configuration import ParallelConfig
from pipeline.planning.memory import GIB, step_memory
from pipeline.planning.planner import plan
from pipeline.planning.rehearsals import Rehearsals
from pipeline.planning.settings import GpuConfig, Layout
from pipeline.planning.sweep import possible_layouts
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


def test_a_layout_between_rehearsed_ones_is_estimated_from_above(training, gpu):
    # Enough experts, wide enough, that those on a rank weigh something.
    decoder = replace(training.decoder, n_routed_experts=16, moe_intermediate_size=256, num_hidden_layers=3)
    training = replace(training, decoder=decoder, dispatch="all_to_all")
    layouts = [Layout(1, 16 // ep, ep, 8) for ep in (2, 4, 8, 16)]
    between = layouts[1]
    rehearsals = Rehearsals(training, gpu, layouts)
    estimate = step_memory(training, between, gpu, rehearsals.near(between, False)).fullest
    held = step_memory(training, between, gpu, rehearsals.of(between, False)).fullest
    assert held.total <= estimate.total <= 1.02 * held.total


def test_the_best_layout_fits_and_its_ranks_receive_least_from_other_machines(training, gpu):
    report = plan(replace(training, batch_size=8), ParallelConfig(ep=2, nodes=2, gpus_per_node=2), gpu)
    assert report["fits"]
    assert report["recommended"] == report["sweep"][0]
    assert report["recommended"]["fits"]
    assert report["recommended"]["inter_node_gib"] == min(row["inter_node_gib"] for row in report["sweep"])
    assert not any(row["recompute"] for row in report["sweep"])
    assert report["memory"]["activations_recompute_gib"] < report["memory"]["activations_gib"]
    assert report["memory"]["total_recompute_gib"] < report["memory"]["total_gib"]
    assert "Recommended: strategy.dp_replicate=" in terminal_text(report)


def test_recompute_is_recommended_where_nothing_fits_without(training):
    training = replace(training, batch_size=16, sequence_length=256)
    layout = Layout(1, 1, 1, 1)
    gpu = GpuConfig("large", 10.0, context_gib=0)
    rehearsals = Rehearsals(training, gpu, [layout])
    without, recomputing = (step_memory(training, layout, gpu, rehearsals.of(layout, r)).total for r in (False, True))
    middle = replace(gpu, memory_gib=(without + recomputing) / 2 / GIB)
    report = plan(training, ParallelConfig(nodes=1, gpus_per_node=1), middle)
    assert not report["fits"]
    assert report["recommended"]["fits"]
    assert report["recommended"]["recompute"]


def test_what_does_not_fit_at_all_is_said_so(training):
    report = plan(training, ParallelConfig(nodes=1, gpus_per_node=1), GpuConfig("small", 0.001, context_gib=0))
    assert not report["fits"]
    assert not report["recommended"]["fits"]
    assert report["reason"].startswith("None of ")
    assert "trainer.batch_size" in report["reason"]


def test_the_parts_make_up_the_total(training, gpu):
    layout = Layout(1, 2, 2, 4)
    memory = step_memory(training, layout, gpu, Rehearsals(training, gpu, [layout]).of(layout, False))
    assert memory.total == memory.fullest.parts.total() + memory.fragmentation + memory.context
    assert memory.context == gpu.context_gib * GIB
