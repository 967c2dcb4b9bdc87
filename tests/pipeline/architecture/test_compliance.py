import json
from dataclasses import replace

import pytest

from pipeline.architecture.compliance import BOTH, CARD, DIFFERS, NOT_BUILT, PAPER, compliance_report, compliance_rows
from pipeline.architecture.examination import preset, subject
from pipeline.architecture.quantities import TOPICS
from pipeline.architecture.subject import Subject, scaled_down
from pipeline.architecture.terminal import terminal_text

CODEC = {"kind": "mel_rvq", "n_codebooks": 4, "codebook_size": 256}


@pytest.fixture(scope="module")
def presets() -> dict[str, Subject]:
    return {name: subject(preset(name), CODEC, None) for name in ("deepseek_v3", "card", "small")}


@pytest.fixture(scope="module")
def reports(presets) -> dict[str, dict]:
    paper, card = presets["deepseek_v3"], presets["card"]
    budgets = {
        "available_tokens": None,
        "source": "not prepared",
        "rows": [
            {"rule": "Chinchilla", "denominator": "active", "tokens_per_parameter": 20.0, "tokens": 1e9, "epochs": None}
        ],
    }
    return {name: compliance_report(model, paper, card, budgets) for name, model in presets.items()}


def rows_of(report: dict) -> dict[tuple[str, str], dict]:
    return {(row["topic"], row["quantity"]): row for row in report["rows"]}


def test_the_paper_preset_follows_the_paper_in_everything_built_here(reports):
    rows = reports["deepseek_v3"]["rows"]
    assert [row["quantity"] for row in rows if row["paper"] is not None and row["verdict"] in (CARD, DIFFERS)] == []
    # What is not built is code of training, never a property of the model.
    assert {row["topic"] for row in rows if row["verdict"] == NOT_BUILT} <= {"Training"}


def test_the_card_preset_follows_the_card_but_for_its_total(reports):
    assert [row["quantity"] for row in reports["card"]["differences"]["from_card"]] == ["main model, as stated"]


def test_the_two_totals_are_told_apart_and_what_differs_is_named(reports):
    v3, card = rows_of(reports["deepseek_v3"]), rows_of(reports["card"])
    key = ("Parameters", "main model")
    assert v3[key]["value"] == v3[key]["paper"] == card[key]["paper"] == 671_026_404_352
    assert card[key]["value"] == v3[key]["card"] == 670_432_158_208
    assert (v3[key]["verdict"], card[key]["verdict"]) == (PAPER, CARD)
    components = {row["component"]: row["card_minus_paper"] for row in reports["deepseek_v3"]["components"]}
    assert components == {
        "embedding": -9_175_040,
        "head": -9_175_040,
        "attention": -3_130_227_200,
        "dense feed forward": 0,
        "router": 0,
        "routed experts": 0,
        "shared experts": 2_554_331_136,
        "norms": 0,
        "total": -594_246_144,
    }
    named = {difference["quantity"] for difference in reports["card"]["differences"]["from_paper"]}
    assert {"key-value compression rank", "query compression rank", "shared experts", "vocabulary"} <= named


def test_the_json_holds_what_programs_read(reports):
    report = json.loads(json.dumps(reports["deepseek_v3"]))
    assert report["parameters"]["total"] == 671_026_404_352
    assert report["parameters"]["active"] == 37_552_282_624
    assert report["parameters"]["mtp"] == 11_610_067_968
    assert report["parameters"]["published"] == 684_489_830_400
    assert report["cache"]["bytes_per_token"] == 70_272
    assert report["flops"]["training_per_token"] == 3 * report["flops"]["forward_per_token"]
    assert len(report["rows"]) == sum(map(len, TOPICS.values()))
    assert all(row["section"] for row in report["rows"])


@pytest.mark.parametrize(
    ("changes", "quantity", "verdict", "text"),
    [
        ({"n_group": 16}, "groups of experts", DIFFERS, "16"),
        ({"topk_group": 2}, "groups a token may go to", DIFFERS, "2"),
        ({"routed_scaling_factor": 1.0}, "sum of a token's gates", DIFFERS, "1"),
        ({"qk_rope_head_dim": 32}, "query dimensions that positions rotate", DIFFERS, "32"),
        ({"qk_rope_head_dim": 56}, "query dimensions that positions rotate", CARD, "56"),
        ({"rope_theta": 5e4}, "rotary base", DIFFERS, "50,000"),
        ({"kv_lora_rank": 1536}, "key-value compression rank", CARD, "1,536"),
        ({"q_lora_rank": None}, "query compression rank", CARD, "not compressed"),
        ({"q_lora_rank": 768}, "query compression rank", DIFFERS, "768"),
        ({"v_head_dim": 64}, "value dimensions of a head", DIFFERS, "64"),
        ({"qk_nope_head_dim": 64}, "query and key dimensions of a head", DIFFERS, "128"),
        ({"num_attention_heads": 64}, "heads", DIFFERS, "64"),
        ({"num_hidden_layers": 60}, "layers", DIFFERS, "60"),
        ({"hidden_size": 7176}, "hidden size", DIFFERS, "7,176"),
        ({"vocab_size": 128000}, "vocabulary", CARD, "128,000"),
        ({"tie_word_embeddings": True}, "one matrix for embedding and head", DIFFERS, "yes"),
        ({"rms_norm_eps": 1e-5}, "RMSNorm epsilon", DIFFERS, "1e-05"),
        ({"initializer_range": 0.02}, "standard deviation of initial weights", DIFFERS, "0.02"),
        ({"first_k_dense_replace": 1}, "leading dense layers", DIFFERS, "1"),
        ({"intermediate_size": 10944}, "hidden units of a dense layer", DIFFERS, "10,944"),
        ({"n_routed_experts": 128}, "routed experts", DIFFERS, "128"),
        ({"num_expert_segments": 2}, "routed experts", DIFFERS, "512"),
        ({"moe_intermediate_size": 1408}, "hidden units of an expert", DIFFERS, "1,408"),
        ({"n_shared_experts": 2}, "shared experts", CARD, "2"),
        ({"num_experts_per_tok": 6}, "experts a token goes to", DIFFERS, "6"),
        ({"scoring_func": "softmax"}, "scores", DIFFERS, "softmax"),
        ({"num_nextn_predict_layers": 2}, "depth", DIFFERS, "2"),
        ({"rope_interleave": False}, "rotary pairs", DIFFERS, "half a head apart"),
    ],
)
def test_a_changed_model_is_measured_as_changed(presets, changes, quantity, verdict, text):
    paper, card = presets["deepseek_v3"], presets["card"]
    changed = Subject(replace(paper.config, **changes), paper.objective)
    (row,) = [row for row in compliance_rows(changed, paper, card) if row.quantity == quantity]
    assert (row.verdict, row.text) == (verdict, text)
    (unchanged,) = [row for row in compliance_rows(paper, paper, card) if row.quantity == quantity]
    assert unchanged.verdict in (PAPER, BOTH)


@pytest.mark.parametrize(
    ("changes", "quantity"),
    [
        ({"bias_update_speed": 0.01}, "one balancing step of the routing bias"),
        ({"sequence_balance_weight": 0.0}, "weight of the sequence-wise balance loss"),
        ({"mtp_weight": 0.2, "mtp_final_ratio": 0.5}, "weight of its loss, first"),
        ({"mtp_final_ratio": 1.0}, "weight of its loss, last"),
    ],
)
def test_a_changed_objective_is_noticed(presets, changes, quantity):
    paper, card = presets["deepseek_v3"], presets["card"]
    changed = Subject(paper.config, replace(paper.objective, **changes))
    verdicts = {row.quantity: row.verdict for row in compliance_rows(changed, paper, card)}
    assert verdicts[quantity] == DIFFERS
    assert [name for name, verdict in verdicts.items() if verdict == DIFFERS] == [quantity]


def test_the_terminal_shows_every_row_and_says_what_differs(reports):
    text = terminal_text(reports["card"])
    assert all(row["quantity"] in text for row in reports["card"]["rows"])
    assert "670,432,158,208" in text
    assert "671,026,404,352" in text
    assert "Attention, key-value compression rank: 1,536, in the paper 512" in text
    assert "active parameters" in text
    assert "Nothing measured differs from the paper." in terminal_text(reports["deepseek_v3"])


def test_a_scaled_down_copy_is_small_and_keeps_what_is_measured(presets):
    config = scaled_down(presets["deepseek_v3"].config)
    assert sum(parameter.numel() for parameter in presets["deepseek_v3"].copy.parameters()) < 2_000_000
    kept = ("n_routed_experts", "n_group", "topk_group", "num_experts_per_tok", "qk_rope_head_dim", "rope_theta")
    assert all(getattr(config, name) == getattr(presets["deepseek_v3"].config, name) for name in kept)
