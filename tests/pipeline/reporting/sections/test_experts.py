from dataclasses import replace

import numpy as np

from pipeline.reporting.data import collect
from pipeline.reporting.sections.experts import expert_balance
from pipeline.reporting.specialisation import Preferences


def test_experts_are_shown_by_codebook_speaker_and_pair(paths) -> None:
    report = replace(
        collect(paths),
        expert_preferences={
            "codebook": Preferences(("0", "1"), {"1": np.array([[1.5, 0.5], [0.5, 1.5]])}),
            "speaker": Preferences(("anna", ""), {"1": np.array([[1.5, 0.5], [0.5, 1.5]])}),
        },
        expert_pairs={"1": np.array([[np.nan, 2.0], [2.0, np.nan]])},
    )
    metrics = {
        **report.metrics,
        "eval/moe/codebook_information/layer_1": 0.413,
        "eval/moe/speaker_information/layer_1": 0.0597,
        "eval/moe/speaker_information_by_chance/layer_1": 0.0149,
    }
    page = expert_balance(replace(report, metrics=metrics)).html
    for text in (
        "Experts by codebook",
        ">codebook 1<",
        ">anna<",
        ">unknown<",
        "Experts chosen together",
        "41 %",
        "1.5 %",
    ):
        assert text in page


def test_pairs_of_very_many_experts_are_not_drawn(paths) -> None:
    report = replace(collect(paths), expert_pairs={"1": np.ones((100, 100))})
    assert "Experts chosen together" not in expert_balance(report).html
