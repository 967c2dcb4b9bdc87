"""Every probe sees a change of what it measures: by a setting where there is one, else by breaking the model."""

from types import SimpleNamespace

import pytest
import torch

from lightning_modules.model.dispatch import LocalDispatcher
from lightning_modules.model.router import Router, Routing
from lightning_modules.model.yarn import YarnConfig
from pipeline.architecture import attention_probes, routing_probes, training_probes


@pytest.mark.parametrize(
    ("nope", "rope", "expected"),
    [(8, 4, 4), (8, 6, 6), (0, 4, 4), (8, 0, 8)],
    ids=["4", "6", "all shared", "whole head"],
)
@pytest.mark.parametrize("q_lora_rank", [None, 16])
def test_rotated_dimensions(examine_subject, nope, rope, expected, q_lora_rank):
    config = examine_subject(qk_nope_head_dim=nope, qk_rope_head_dim=rope, q_lora_rank=q_lora_rank).copy.config
    assert attention_probes.rotated_query_dims(config) == expected


def test_rotated_dimensions_under_yarn(examine_subject):
    yarn = YarnConfig(factor=40.0, original_max_position_embeddings=128)
    config = examine_subject(qk_rope_head_dim=64, rope_scaling=yarn).copy.config
    assert attention_probes.rotated_query_dims(config) == 64


def test_positions_that_are_ignored_are_noticed(examine_subject, monkeypatch):
    monkeypatch.setattr("lightning_modules.model.attention.rotate", lambda x, *_: x)
    assert attention_probes.rotated_query_dims(examine_subject().copy.config) == 0


@pytest.mark.parametrize("theta", [10000.0, 50000.0])
def test_rotary_base(examine_subject, theta):
    assert attention_probes.rotary_theta(examine_subject(qk_rope_head_dim=64, rope_theta=theta).config) == theta
    assert attention_probes.rotary_theta(examine_subject(qk_rope_head_dim=2).config) is None


def test_rotary_pairs(examine_subject):
    assert attention_probes.rotary_pairs(examine_subject(qk_rope_head_dim=8).copy) == "adjacent"
    halves = examine_subject(qk_rope_head_dim=8, rope_interleave=False)
    assert attention_probes.rotary_pairs(halves.copy) == "half a head apart"


def test_yarn(examine_subject):
    plain = examine_subject(qk_rope_head_dim=64)
    yarn = YarnConfig(factor=40.0, original_max_position_embeddings=4096)
    extended = examine_subject(qk_rope_head_dim=64, rope_scaling=yarn)
    assert attention_probes.yarn_factor(plain.config) == 1
    assert attention_probes.yarn_factor(extended.config) == pytest.approx(40, rel=1e-3)
    assert attention_probes.attention_magnitude(plain.copy) == pytest.approx(1)
    assert attention_probes.attention_magnitude(extended.copy) == pytest.approx(1.8738, rel=1e-4)


@pytest.mark.parametrize("rope", [4, 0])
def test_decoding_error_is_rounding_until_positions_are_lost(examine_subject, monkeypatch, rope):
    decoder = examine_subject(qk_rope_head_dim=rope, initializer_range=0.5).copy
    assert attention_probes.decoding_error(decoder) < 5e-6
    monkeypatch.setattr(
        "lightning_modules.model.cache.LatentCache.positions",
        lambda cache, n: torch.arange(n) + cache.lengths[:, None].clamp_max(1),
    )
    assert attention_probes.decoding_error(decoder) > 1e-3


@pytest.mark.parametrize(
    ("n_experts", "n_group", "topk_group", "n_chosen"),
    [(8, 4, 2, 2), (8, 2, 1, 2), (8, 1, 1, 3), (64, 8, 4, 8), (64, 8, 3, 8), (64, 4, 3, 6)],
)
def test_groups(examine_subject, n_experts, n_group, topk_group, n_chosen):
    sizes = {"n_routed_experts": n_experts, "n_group": n_group, "topk_group": topk_group}
    decoder = examine_subject(**sizes, num_experts_per_tok=n_chosen).copy
    assert routing_probes.expert_groups(decoder) == (n_group, topk_group)
    assert routing_probes.chosen_experts(decoder) == n_chosen


def test_a_choice_without_rule_has_no_groups(examine_subject, monkeypatch):
    monkeypatch.setattr(Router, "_choose", lambda self, scores: scores.topk(self.n_chosen, largest=False).indices)
    assert routing_probes.expert_groups(examine_subject().copy) is None


@pytest.mark.parametrize("factor", [2.5, 1.0])
def test_gates(examine_subject, factor):
    assert routing_probes.gate_sum(examine_subject(routed_scaling_factor=factor).copy) == factor
    unnormalised = examine_subject(routed_scaling_factor=factor, norm_topk_prob=False)
    assert routing_probes.gate_sum(unnormalised.copy) == "not normalised"


def test_scores(examine_subject, monkeypatch):
    assert routing_probes.scoring(examine_subject().copy) == "sigmoid"
    assert routing_probes.scoring(examine_subject(scoring_func="softmax").copy) == "softmax"
    monkeypatch.setattr(Router, "_score", lambda self, logits: logits.tanh())
    assert routing_probes.scoring(examine_subject().copy) == "another"


def test_score_precision(examine_subject, monkeypatch):
    decoder = examine_subject().copy
    assert routing_probes.score_precision(decoder) == "float32"
    rounded = SimpleNamespace(linear=lambda x, w: torch.nn.functional.linear(x.bfloat16(), w.bfloat16()))
    monkeypatch.setattr("lightning_modules.model.router.F", rounded)
    assert routing_probes.score_precision(decoder) == "bfloat16"


def test_effect_of_the_bias(examine_subject, monkeypatch):
    decoder = examine_subject().copy
    assert routing_probes.effect_of_bias(decoder) == "choice alone"
    forward = Router.forward

    def biased_gates(router, hidden):
        routing = forward(router, hidden)
        gates = (routing.scores + router.e_score_correction_bias).gather(1, routing.indices)
        return Routing(routing.indices, gates, routing.scores)

    monkeypatch.setattr(Router, "forward", biased_gates)
    assert routing_probes.effect_of_bias(decoder) == "choice and gates"
    monkeypatch.setattr(Router, "forward", forward)
    monkeypatch.setattr(Router, "_choose", lambda self, scores: torch.zeros(len(scores), 1, dtype=torch.long))
    assert routing_probes.effect_of_bias(decoder) == "nothing"


def test_dropped_tokens(examine_subject, monkeypatch):
    decoder = examine_subject().copy
    assert routing_probes.dropped_tokens(decoder) == 0
    dispatch = LocalDispatcher.dispatch

    def with_capacity(self, plan):
        gates = plan.gates.clone()
        gates[100:] = 0
        return dispatch(self, plan._replace(gates=gates))

    monkeypatch.setattr(LocalDispatcher, "dispatch", with_capacity)
    assert routing_probes.dropped_tokens(decoder) == 156


def test_bias_update(examine_subject, monkeypatch):
    decoder = examine_subject().copy
    assert routing_probes.bias_update(decoder, 1e-3) == "−0.001 busiest, +0.001 idle"
    assert routing_probes.bias_update(decoder, 0.01) == "−0.01 busiest, +0.01 idle"
    update = Router.update_bias
    monkeypatch.setattr(Router, "update_bias", lambda self, load, speed: update(self, load, -speed))
    assert routing_probes.bias_update(decoder, 1e-3) == "+0.001 busiest, −0.001 idle"


@pytest.mark.parametrize("routing", ["independent", "hierarchical"])
def test_segments_are_routed_too(examine_subject, routing):
    decoder = examine_subject(num_expert_segments=2, moe_intermediate_size=16, expert_segment_routing=routing).copy
    assert routing_probes.chosen_experts(decoder) == 4
    assert routing_probes.gate_sum(decoder) == 2.5
    assert routing_probes.expert_groups(decoder) == (4, 2)
    assert routing_probes.bias_update(decoder, 1e-3) == "−0.001 busiest, +0.001 idle"


def test_a_dense_decoder_routes_nothing(examine_subject):
    decoder = examine_subject(first_k_dense_replace=3, num_nextn_predict_layers=0).copy
    assert routing_probes.gate_sum(decoder) is None
    assert routing_probes.expert_groups(decoder) is None
    assert routing_probes.bias_update(decoder, 1e-3) is None


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_prediction_depth(examine_subject, depth):
    assert training_probes.prediction_depth(examine_subject(num_nextn_predict_layers=depth).copy) == depth


def test_prediction_inputs(examine_subject):
    decoder = examine_subject().copy
    before = decoder.embed_tokens.weight.clone()
    assert training_probes.prediction_inputs(decoder) == "embedding, hidden"
    assert torch.equal(decoder.embed_tokens.weight, before)
    module = decoder.mtp[0]
    forward = module.forward
    module.forward = lambda hidden, embedding, inputs: forward(embedding, hidden, inputs)
    assert training_probes.prediction_inputs(decoder) == "hidden, embedding"
    assert training_probes.prediction_inputs(examine_subject(num_nextn_predict_layers=0).copy) is None


def test_prediction_head(examine_subject):
    decoder = examine_subject().copy
    assert training_probes.prediction_head(decoder) == "shared"
    assert decoder.lm_head.weight.any()
    decoder.mtp[0].own_embedding = torch.nn.Embedding(4, 4)
    assert training_probes.prediction_head(decoder) == "own"


@pytest.mark.parametrize("eps", [1e-6, 1e-5])
def test_norm_epsilon(examine_subject, eps):
    assert training_probes.norm_eps(examine_subject(rms_norm_eps=eps).copy) == eps


@pytest.mark.parametrize("std", [0.006, 0.02])
def test_initial_standard_deviation(examine_subject, std):
    assert training_probes.initial_std(examine_subject(initializer_range=std).copy) == pytest.approx(std, rel=0.01)


def test_embedding_shared_with_the_head(examine_subject):
    assert training_probes.shares_embedding(examine_subject(tie_word_embeddings=True).decoder)
    assert not training_probes.shares_embedding(examine_subject().decoder)


def test_what_the_code_base_has():
    assert training_probes.built("lightning_modules.model.router") == "built"
    assert training_probes.built("lightning_modules.nothing.here") is None
