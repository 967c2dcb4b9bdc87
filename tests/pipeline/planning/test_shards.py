from dataclasses import replace

import pytest

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.parallel.configuration import ParallelConfig
from pipeline.architecture.examination import preset
from pipeline.configuration.model import read_model
from pipeline.planning.fake_ranks import shard_sizes, sharded_decoder, standing_for_rank_0
from pipeline.planning.settings import Layout, PlannedTraining
from pipeline.planning.shards import n_local_parameters


def training_of(config: DecoderConfig, precision: str) -> PlannedTraining:
    return PlannedTraining(config, ObjectiveConfig(1.0, 0.3, 1e-3, 1e-4), precision)


def exact(config: DecoderConfig, layout: Layout) -> int:
    with standing_for_rank_0(layout.world_size):
        return shard_sizes(sharded_decoder(training_of(config, "bf16"), layout)).local


@pytest.mark.parametrize(
    "layout",
    [
        Layout(1, 1, 1, 1),
        Layout(1, 8, 1, 8),
        Layout(1, 1, 8, 8),
        Layout(1, 4, 2, 8),
        Layout(2, 2, 4, 8),
        Layout(4, 16, 1, 8),
    ],
    ids=str,
)
def test_arithmetic_agrees_with_sharding(decoder_config, layout):
    # 64 shards of 40 rows: most ranks have none, the first has one.
    assert n_local_parameters(decoder_config, layout) == exact(decoder_config, layout)


def test_arithmetic_agrees_with_sharding_where_experts_are_segmented_and_weights_tied(decoder_config):
    config = replace(decoder_config, num_expert_segments=2, expert_segment_sizes=(8, 24), tie_word_embeddings=True)
    layout = Layout(1, 4, 4, 8)
    assert n_local_parameters(config, layout) == exact(config, layout)


def test_the_largest_preset_is_sharded_over_thousands_of_ranks():
    config, _ = read_model(preset("deepseek_v3"), 1)
    config = replace(config, num_hidden_layers=5)
    layout = Layout(1, 32, 64, 8)
    with standing_for_rank_0(layout.world_size):
        sizes = shard_sizes(sharded_decoder(training_of(config, "fp8_deepseek"), layout))
    assert sizes.local == n_local_parameters(config, layout)
    # Three mixtures: two layers, and that of multi-token prediction.
    assert sizes.local_experts == 3 * 256 * 3 * 7168 * 2048 // 2048
    assert sizes.total / 2048 <= sizes.local < 1.02 * sizes.total / 2048


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout(1, 1, 16, 8), r"model.n_routed_experts \(8\) does not divide over strategy.ep \(16\)"),
        (Layout(1, 3, 1, 8), r"model.hidden_size \(64\) does not divide over strategy.dp_shard \(3\)"),
        (Layout(1, 2, 1, 8, cp=3), r"\(64\) does not divide over strategy.dp_shard \(2\) × strategy.cp \(3\)"),
    ],
)
def test_sizes_that_do_not_divide_are_named(decoder_config, layout, message):
    with pytest.raises(ValueError, match=message):
        exact(decoder_config, layout)


def test_ranks_that_the_mesh_does_not_make_up_are_named():
    with pytest.raises(ValueError, match=r"strategy.ep \(3\) = 3 does not divide the 16 ranks"):
        Layout.of(ParallelConfig(ep=3, nodes=2, gpus_per_node=8))


def test_a_process_that_is_a_rank_already_cannot_stand_for_another():
    with standing_for_rank_0(2), pytest.raises(RuntimeError, match="process of its own"), standing_for_rank_0(2):
        pass
