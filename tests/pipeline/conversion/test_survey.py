import math
from dataclasses import replace

import pytest
import torch

from pipeline.checkpoints.quantisation import RoundingLog, retype
from pipeline.conversion.survey import edge_ratio, survey

NAME = "model.layers.0.self_attn.o_proj.weight"


@pytest.mark.parametrize("shape", [(512, 512), (192, 512), (1024, 128)])
def test_a_random_matrix_ends_at_the_edge_whatever_its_size_and_scale(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert 0.9 < edge_ratio(matrix) < 1.02
    assert edge_ratio(0.01 * matrix) == pytest.approx(edge_ratio(matrix), rel=1e-4)


def test_what_is_learnt_sticks_out_by_its_singular_value() -> None:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(256, 384, generator=generator)
    left, right = (torch.nn.functional.normalize(torch.randn(n, generator=generator), dim=0) for n in (256, 384))
    edge = math.sqrt(256) + math.sqrt(384)
    learnt = noise + 3 * edge * torch.outer(left, right)
    assert edge_ratio(learnt) == pytest.approx(float(torch.linalg.svdvals(learnt)[0] / (learnt.std() * edge)), rel=1e-3)
    assert edge_ratio(learnt) > 2.5


def test_the_ratio_is_the_same_every_time_and_leaves_the_generator_alone() -> None:
    matrix = torch.randn(64, 64)
    state = torch.random.get_rng_state()
    assert edge_ratio(matrix) == edge_ratio(matrix)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("matrix", [torch.randn(8, 300), torch.ones(64, 64)])
def test_small_and_constant_matrices_have_no_ratio(matrix: torch.Tensor) -> None:
    assert math.isnan(edge_ratio(matrix))


def test_facts_are_those_of_the_target_beside_the_source(build_decoder, source_of) -> None:
    decoder = build_decoder()
    source = source_of(decoder)
    changed = source.tensors[NAME].read()
    changed[0, 0] += 0.5
    facts = survey(source, source_of(decoder, {NAME: changed}))
    assert list(facts) == list(source.tensors)
    fact = facts[NAME]
    assert (fact.shape, fact.dtype, fact.source_dtype, fact.n_nonfinite) == (
        tuple(changed.shape),
        "float32",
        "float32",
        0,
    )
    assert (fact.lowest, fact.highest) == (float(changed.min()), float(changed.max()))
    assert fact.std == pytest.approx(float(changed.std(correction=0)), rel=1e-5)
    assert fact.relative_error == pytest.approx(0.5 / float(source.tensors[NAME].read().norm()), rel=1e-5)
    assert [name for name, other in facts.items() if other.relative_error] == [NAME]


def test_fp8_is_looked_at_with_its_factors(build_decoder, source_of) -> None:
    source = source_of(build_decoder())
    rounded = replace(source, tensors=retype(source.tensors, "fp8", RoundingLog()))
    fact = survey(source, rounded)[NAME]
    assert fact.dtype == "float8_e4m3fn"
    assert 0 < fact.relative_error < 2**-4
    assert fact.std == pytest.approx(float(source.tensors[NAME].read().std()), rel=0.02)


def test_numbers_that_are_none_are_counted(build_decoder, source_of) -> None:
    decoder = build_decoder()
    broken = torch.zeros(decoder.state_dict()["norm.weight"].shape)
    broken[:3] = torch.tensor([math.nan, math.inf, -math.inf])
    facts = survey(source_of(decoder), source_of(decoder, {"model.norm.weight": broken}))
    assert facts["model.norm.weight"].n_nonfinite == 3


def test_what_was_made_up_is_not_looked_at(build_decoder, source_of) -> None:
    source = source_of(build_decoder())
    loads = tuple(name for name in source.tensors if name.endswith("expert_loads"))
    assert loads
    assert not set(loads) & set(survey(replace(source, initialised=loads), source))
