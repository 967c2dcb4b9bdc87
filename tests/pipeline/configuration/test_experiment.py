"""Every leaf of the composed configuration set wrong in many ways: a sentence that names it, or nothing at all."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.compose import compose
from pipeline.configuration.composed import CONF, REPOSITORY
from pipeline.configuration.experiment import OWN_KEYS, check_experiment
from tests.pipeline.configuration.wrong_settings import (
    OTHERS,
    OWN_FILES,
    WRONG,
    changed,
    composed,
    fault,
    file_of,
    leaves,
    refusal,
)


@pytest.mark.parametrize("overrides", ["", *OTHERS])
def test_every_leaf_set_wrong_is_refused_by_name_or_harmless(overrides: str) -> None:
    values = composed(overrides)
    name_of_file = file_of(overrides)
    assert refusal(values, name_of_file) is None
    problems = []
    # What the default experiment has too is walked there.
    for key in leaves({group: values[group] for group in walked_groups(overrides, values)}):
        for name, wrong in WRONG.items():
            if (found := fault(values, key, name, name_of_file)) is not None:
                problems.append(f"{key}={wrong!r}: {found}")
    assert not problems, "\n".join(problems)


def walked_groups(overrides: str, values: Mapping[str, Any]) -> list[str]:
    if overrides in OWN_FILES:
        return list(OWN_KEYS[overrides])
    return [overrides.partition("=")[0]] if overrides else list(values)


def test_each_choice_of_conf_passes() -> None:
    for group in ("codec", "model", "optimizer", "precision", "schedule", "strategy", "tracking", "trainer"):
        for path in sorted((CONF / group).glob("[!_]*.yaml")):
            check_experiment(composed(f"{group}={path.stem}"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"paths.prepared": "."}, "paths.prepared .* working directory"),
        ({"paths.prepared": "/"}, "paths.prepared .* working directory"),
        ({"target": ".."}, "target .* working directory"),
        ({"paths.cache": "data/prepared/cache"}, "paths.cache lies in paths.prepared"),
        ({"data.workers": 10**6}, "data.workers is 1000000; it may be at most 1,024"),
        ({"codec.griffin_lim_iterations": 10**9}, r"codec\.griffin_lim_iterations .* between 1 and 1000"),
        ({"data.minutes": 1e9}, "data.minutes is 1000000000.0; it may be at most 60,000"),
        ({"evaluate.n_prompted": 10**7}, "evaluate.n_prompted is 10000000; it may be at most 10,000"),
    ],
)
def test_what_would_cost_a_day_or_a_folder_is_named(changes: dict[str, Any], words: str) -> None:
    values: dict[str, Any] = compose()
    for key, value in changes.items():
        values = changed(values, key, value)
    with pytest.raises(ValueError, match=words):
        check_experiment(values)


def test_checking_needs_no_torch() -> None:
    code = "import sys, pipeline.configuration.experiment; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
