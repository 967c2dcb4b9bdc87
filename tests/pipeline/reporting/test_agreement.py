"""A report says what is from another training than the evaluation that it is about."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.provenance.identity import Identity, TrainingIdentity, write_identity
from pipeline.reporting.agreement import disagreements
from pipeline.reporting.data import ReportPaths, collect
from pipeline.reporting.page import render
from tests.pipeline.reporting.conftest import build_outputs
from tests.prepared_tokens import write_prepared_tokens

TRAINING = TrainingIdentity("d" * 64, "c" * 64, "s" * 16, "f" * 64, "a" * 64)
OTHER = replace(TRAINING, checkpoint="b" * 64)
CONFIGURATION = {"trainer": {"max_steps": 6}, "data": {"kind": "espeak"}, "seed": 5}


@pytest.fixture
def paths(tmp_path: Path) -> ReportPaths:
    paths = build_outputs(tmp_path, seconds=0.3, n_clips=1)
    write_identity(paths.train / "identity.json", Identity(TRAINING))
    write_identity(paths.export / "identity.json", Identity(TRAINING, follows_training=True))
    write_identity(paths.evaluate / "identity.json", Identity(TRAINING, data=TRAINING.data))
    return paths


def page(paths: ReportPaths) -> str:
    return render(collect(paths, CONFIGURATION, foreign=disagreements(paths)))


def test_what_belongs_together_is_shown_without_a_word(paths: ReportPaths) -> None:
    assert disagreements(paths) == {}
    html = page(paths)
    assert 'class="foreign"' not in html
    assert "<dd>6 steps</dd>" in html


@pytest.mark.parametrize("evaluated", [None, OTHER])
def test_curves_of_another_training_are_marked_and_lend_no_facts(
    paths: ReportPaths, evaluated: TrainingIdentity | None
) -> None:
    if evaluated is None:
        (paths.evaluate / "identity.json").unlink()
    else:
        write_identity(paths.evaluate / "identity.json", Identity(evaluated))
    sentence = disagreements(paths)["curves"]
    assert "training with checkpoint aaaaaaaaaaaa" in sentence
    assert ("bbbbbbbbbbbb" if evaluated else "unknown training") in sentence
    html = page(paths)
    assert html.count(f'class="foreign">{sentence}') >= 3  # the curves, the experts', the configuration
    assert "<dd>6 steps</dd>" not in html


def test_results_that_say_nothing_are_not_taken_to_belong_together(paths: ReportPaths) -> None:
    for folder in (paths.train, paths.evaluate):
        (folder / "identity.json").unlink()
    assert "is not known" in disagreements(paths)["curves"]


def test_another_conversion_and_other_data_are_named(paths: ReportPaths) -> None:
    write_identity(paths.export / "identity.json", Identity(OTHER))
    write_prepared_tokens(paths.prepared)
    found = disagreements(paths)
    assert found.keys() == {"conversion", "data"}
    assert "other data than those that were evaluated on" in page(paths)
