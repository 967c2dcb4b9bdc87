import pytest
import torch

from pipeline.conversion.survey import survey
from pipeline.conversion.weight_statistics import check_statistics, look

# Sides of 16 at least, which the smallest test model does not have.
WIDE = {"kv_lora_rank": 24, "qk_nope_head_dim": 12, "hidden_size": 64, "moe_intermediate_size": 32}


@pytest.fixture
def examine(build_decoder, teach, source_of):
    """Check a trained-looking decoder, some of whose tensors are others."""

    def run(changes=None, missing=(), learnt=True, **config):
        decoder = build_decoder(**WIDE | config)
        source = source_of(teach(decoder) if learnt else decoder, changes and changes(decoder))
        return check_statistics(survey(source, source), missing)

    return run


def drawn(*places):
    """Tensors as an initialisation draws them."""

    def make(decoder):
        generator = torch.Generator().manual_seed(3)
        shapes = {name: decoder.state_dict()[own].shape for name, own in places}
        return {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    return make


def projections(*layers):
    return [(f"model.layers.{i}.self_attn.o_proj.weight", f"layers.{i}.self_attn.o_proj.weight") for i in layers]


def test_trained_weights_pass(examine) -> None:
    check = examine()
    assert (check.status, check.numbers["random_looking"]) == ("pass", 0)
    assert check.numbers["matrices"] > 50
    assert check.numbers["smallest_edge_ratio"] > 1.2


def test_a_decoder_as_it_was_drawn_has_hardly_been_trained(examine) -> None:
    check = examine(learnt=False)
    assert (check.status, check.numbers["random_looking"]) == ("warn", check.numbers["matrices"])
    assert "hardly been trained" in check.sentence


def test_a_projection_that_is_random_in_every_layer_was_not_loaded(examine) -> None:
    check = examine(drawn(*projections(0, 1, 2)), num_nextn_predict_layers=0)
    assert check.status == "fail"
    assert check.sentence == "output projections untrained in layers 0-2, while other weights are trained"


def test_one_that_is_random_in_one_layer_is_a_warning(examine) -> None:
    check = examine(drawn(*projections(1)))
    assert (check.status, check.numbers["random_looking"]) == ("warn", 1)
    assert "output projections untrained in layer 1" in check.sentence


def test_what_is_known_to_be_missing_is_told_elsewhere(examine) -> None:
    missing = [name for name, _ in projections(0, 1, 2)]
    assert examine(drawn(*projections(0, 1, 2)), missing, num_nextn_predict_layers=0).status == "pass"


@pytest.mark.parametrize(
    ("name", "value", "status", "words"),
    [
        ("model.layers.1.self_attn.o_proj.weight", 0.0, "fail", "every number is the same in model.layers.1.self_attn"),
        ("model.layers.1.input_layernorm.weight", 0.0, "fail", "every number is the same in model.layers.1.input_lay"),
        ("model.layers.1.input_layernorm.weight", 1.0, "fail", "norms untrained in layer 1, while other weights"),
        ("model.layers.1.mlp.gate.e_score_correction_bias", 0.0, "pass", "all"),
    ],
)
def test_tensors_of_one_number(examine, name: str, value: float, status: str, words: str) -> None:
    def constant(decoder):
        return {name: torch.full_like(decoder.state_dict()[name.removeprefix("model.")], value)}

    check = examine(constant)
    assert check.status == status
    assert check.sentence.startswith(words)


def test_a_layer_far_from_the_others_is_a_warning(examine) -> None:
    name = "model.layers.1.self_attn.o_proj.weight"
    check = examine(lambda decoder: {name: 20 * decoder.layers[1].self_attn.o_proj.weight.detach()})
    assert (check.status, check.numbers["outliers"]) == ("warn", 1)
    assert name in check.sentence


def test_a_decoder_counts_as_trained_when_most_of_it_is(build_decoder, teach, source_of) -> None:
    fresh = source_of(build_decoder(**WIDE))
    taught = source_of(teach(build_decoder(**WIDE)))
    assert not look(survey(fresh, fresh)).is_trained
    assert look(survey(taught, taught)).is_trained
