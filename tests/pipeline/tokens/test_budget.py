import pytest

from pipeline.tokens.budget import token_budgets


def test_budgets_name_their_denominator():
    budgets = {
        (b.rule, b.denominator, round(b.tokens_per_parameter, 1)): b
        for b in token_budgets(total=671_000_000_000, active=37_000_000_000, available=None, planned=74_000_000_000)
    }
    # The two ways to tell DeepSeek-V3's budget come to the same tokens for its own size.
    assert budgets["DeepSeek-V3", "active", 400.0].tokens == pytest.approx(14.8e12)
    assert budgets["DeepSeek-V3", "total", 22.1].tokens == pytest.approx(14.8e12)
    assert budgets["Chinchilla", "active", 20.0].tokens == 740e9
    assert budgets["Chinchilla", "total", 26.0].tokens == 17_446e9
    assert budgets["this training", "active", 2.0].tokens == pytest.approx(74e9)
    assert all(b.epochs is None for b in budgets.values())


def test_epochs_tell_how_far_the_data_reach():
    budgets = token_budgets(total=1000, active=100, available=4000, planned=8000)
    assert [b.epochs for b in budgets if b.rule == "Chinchilla"] == pytest.approx([0.5, 0.65, 5.0, 6.5])
    assert {b.epochs for b in budgets if b.rule == "this training"} == {2.0}


def test_empty_data_are_refused():
    with pytest.raises(ValueError, match="hold 0 tokens"):
        token_budgets(10, 5, 0, 1)
