"""Trainings that no memory can hold are refused by arithmetic alone."""

from dataclasses import replace

import pytest

from pipeline.planning.admission import GIB, least_bytes, least_parameters, memory_of_a_rank, refuse_what_cannot_fit
from pipeline.planning.settings import Layout
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


def test_ranks_share_a_machine():
    assert 0 < memory_of_a_rank("cpu", 4) <= memory_of_a_rank("cpu", 1) / 3
