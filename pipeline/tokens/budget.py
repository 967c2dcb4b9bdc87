"""How many tokens a model wants, by rules that divide by different things."""

from dataclasses import dataclass

# Chinchilla (arXiv 2203.15556) counts all parameters of dense models, which are all active: 20 tokens for each, or 26
# by the fits that were published later. DeepSeek-V3 saw 14.8T tokens (arXiv 2412.19437, section 4.2).
CHINCHILLA = (20.0, 26.0)
V3 = "DeepSeek-V3"
DEEPSEEK_V3_TOKENS = 14.8e12
DEEPSEEK_V3_STATED = {"active": 37e9, "total": 671e9}


@dataclass(frozen=True)
class TokenBudget:
    """What one rule asks for, or what the configured training gives.

    Attributes:
        rule: whose rule.
        denominator: the parameters it divides by: "active" a token, or "total".
        tokens_per_parameter: the rule.
        tokens: what it comes to for the model.
        epochs: how often the data would have to be gone through; None where their tokens are not known.
    """

    rule: str
    denominator: str
    tokens_per_parameter: float
    tokens: float
    epochs: float | None


def token_budgets(total: int, active: int, available: int | None, planned: int) -> list[TokenBudget]:
    """The budgets of a model with this many parameters, beside the tokens that its training is configured to see.

    Args:
        total: its parameters.
        active: those active a token.
        available: tokens of the data, where they are known.
        planned: tokens of the whole training, repeated ones counted again.

    Raises:
        ValueError: the data hold no tokens.
    """
    if available is not None and available < 1:
        raise ValueError(f"The data hold {available} tokens; prepare some first.")
    parameters = {"active": active, "total": total}
    rules = [("Chinchilla", denominator, ratio) for denominator in parameters for ratio in CHINCHILLA]
    rules += [(V3, denominator, DEEPSEEK_V3_TOKENS / stated) for denominator, stated in DEEPSEEK_V3_STATED.items()]
    rules += [("this training", denominator, planned / count) for denominator, count in parameters.items()]
    budgets = []
    for rule, denominator, ratio in rules:
        tokens = ratio * parameters[denominator]
        budgets.append(TokenBudget(rule, denominator, ratio, tokens, None if available is None else tokens / available))
    return budgets
