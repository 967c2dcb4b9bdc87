"""What training is told to minimise."""

from typing import Any

import pytest

from lightning_modules.model.objective import ObjectiveConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lm_weight": -1.0}, "lm_weight is -1.0; it must not be negative"),
        ({"mtp_weight": -0.1}, "mtp_weight is -0.1"),
        ({"switch_balance_weight": -0.1}, "switch_balance_weight is -0.1"),
        ({"sequence_balance_weight": -0.1}, "sequence_balance_weight is -0.1"),
        ({"bias_update_speed": -0.1}, "bias_update_speed is -0.1"),
        ({"mtp_weights": [0.3, -0.1]}, r"mtp_weights is \[0.3, -0.1\]; none must be negative"),
        ({"mtp_constant_fraction": 1.5}, "mtp_constant_fraction is 1.5; it must lie between 0 and 1"),
        ({"mtp_final_ratio": -1.0}, "mtp_final_ratio is -1.0"),
    ],
)
def test_an_impossible_objective_is_refused(changes: dict[str, Any], message: str) -> None:
    values = {"lm_weight": 1.0, "mtp_weight": 0.3, "bias_update_speed": 1e-3, "sequence_balance_weight": 1e-4}
    with pytest.raises(ValueError, match=f"^model.objective.{message}"):
        ObjectiveConfig(**(values | changes))
