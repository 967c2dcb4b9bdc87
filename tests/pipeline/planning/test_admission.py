"""Trainings that no memory can hold are refused by arithmetic alone."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from lightning_modules.parallel.all_gather import AllGatherDispatcher
from lightning_modules.parallel.row_bound import RowBound
from lightning_modules.parallel.selection import PAGE
from pipeline.planning.admission import (
    GIB,
    expert_rows,
    least_bytes,
    least_parameters,
    memory_of_a_rank,
    refuse_what_cannot_fit,
)
from pipeline.planning.fake_ranks import standing_for_rank_0
from pipeline.planning.settings import Layout, PlannedTraining
from pipeline.planning.shards import n_local_parameters

ALONE, EIGHT = Layout(1, 1, 1, 1), Layout(1, 4, 2, 8)


@pytest.mark.parametrize("layout", [ALONE, EIGHT], ids=["one rank", "eight"])
@pytest.mark.parametrize(
    "changes", [{}, {"num_hidden_layers": 5, "first_k_dense_replace": 2}, {"num_hidden_layers": 1}]
)
def test_few_layers_tell_of_all(tiny_config, layout, changes):
    config = replace(tiny_config, num_nextn_predict_layers=0, **changes)
    assert least_parameters(config, layout) == n_local_parameters(config, layout)


def test_a_training_that_fits_passes(training):
    need = sum(least_bytes(training, ALONE).values())
    refuse_what_cannot_fit(training, ALONE, need)
    with pytest.raises(ValueError, match="needs at least .* lower trainer.batch_size"):
        refuse_what_cannot_fit(training, ALONE, need - 1)


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"batch_size": 2**20}, "activations"), ({"sequence_length": 2**30}, "activations")],
)
def test_what_is_absurd_is_named(training, changes, what):
    training = replace(training, **changes)
    need = least_bytes(training, ALONE)
    assert max(need, key=need.__getitem__) == what
    with pytest.raises(ValueError, match=f"GiB for {what}"):
        refuse_what_cannot_fit(training, ALONE, 64 * GIB)


def test_whole_blocks_recomputed_need_less(training):
    kinds = ("none", "activations", "blocks", "blocks_offloaded")
    need = [least_bytes(replace(training, recompute=kind), ALONE)["activations"] for kind in kinds]
    assert need[0] == need[1] > need[2] > need[3]


def recorded_rows(dispatcher: AllGatherDispatcher, training: PlannedTraining) -> int:
    """Rows that the dispatcher makes room for in the first recorded steps."""
    n_chosen = training.decoder.num_segments_per_tok
    choice = torch.zeros(training.n_tokens, n_chosen, dtype=torch.int64)
    bound = RowBound(dispatcher, choice.device)
    bound.begin()
    tokens = torch.zeros(training.n_tokens, training.decoder.hidden_size)
    return dispatcher.dispatch(dispatcher.plan(tokens, choice.float(), choice)).rows.shape[0]


@pytest.mark.parametrize("ep", [2, 4])
def test_room_for_rows_is_what_dispatchers_make(training, ep):
    layout = Layout(1, 1, ep, ep)
    training = replace(training, dispatch="all_gather")
    with standing_for_rank_0(ep):
        dispatcher = AllGatherDispatcher(training.decoder.n_routed_segments, dist.group.WORLD)
        rows = recorded_rows(dispatcher, training)
    assert expert_rows(training, layout) == rows
    share = training.n_tokens * training.decoder.num_segments_per_tok
    assert 1.5 * share <= rows <= 1.5 * share + PAGE


def test_there_is_room_where_steps_are_recorded(training):
    layout = Layout(1, 1, 4, 4)
    training = replace(training, dispatch="all_gather")
    share = training.n_tokens * training.decoder.num_segments_per_tok
    assert expert_rows(training, layout) > share
    for changes in (
        {"records_steps": False},
        {"accelerator": "cpu"},
        {"precision": "fp16"},
        {"accumulate_grad_batches": 2},
        {"dispatch": "all_to_all"},
    ):
        assert expert_rows(replace(training, **changes), layout) == share
    assert expert_rows(replace(training, accumulate_grad_batches=2, reduce_every_micro_batch=True), layout) > share
    assert expert_rows(training, ALONE) == share
    spare = sum(least_bytes(training, layout).values()) - sum(
        least_bytes(replace(training, records_steps=False), layout).values()
    )
    assert spare > 0


def test_ranks_share_a_machine():
    assert 0 < memory_of_a_rank("cpu", 4) <= memory_of_a_rank("cpu", 1) / 3
