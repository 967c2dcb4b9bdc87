"""What names a sweep's folder."""

import pytest
from hydra._internal.utils import get_args_parser

from pipeline.entry.sweep_folder import with_folder

SWEEP = ["-m", "model=tiny,small", "optimizer.lr=1e-3,3e-4"]


def folder_of(words: list[str]) -> str:
    (folder,) = [word for word in with_folder(words) if word.startswith("hydra.sweep.dir=")]
    return folder


def test_the_same_sweep_has_the_same_folder_however_it_is_typed() -> None:
    folder = folder_of(SWEEP)
    assert folder.startswith("hydra.sweep.dir=multirun/model-lr-")
    assert with_folder(SWEEP) == with_folder(SWEEP)
    again = ["optimizer.lr=1e-3,3e-4", "--multirun", "hydra/launcher=joblib", "sweep.seeds=3", "model=tiny,small"]
    assert folder_of(again) == folder
    assert folder_of([*SWEEP, "trainer.max_steps=5"]) != folder


@pytest.mark.parametrize(
    "words",
    [
        [*SWEEP[1:], "-m"],
        [SWEEP[1], "--multirun", SWEEP[2]],
        [*SWEEP, "--config-dir", "mine"],
        ["--config-dir", "mine", *SWEEP],
    ],
)
def test_hydra_takes_the_options_wherever_they_stand(words: list[str]) -> None:
    parsed = get_args_parser().parse_args(with_folder(words))
    assert parsed.multirun
    assert parsed.overrides == [folder_of(words), *SWEEP[1:]]


def test_a_folder_that_is_named_stays_and_a_single_run_has_none() -> None:
    assert with_folder([*SWEEP, "hydra.sweep.dir=mine"]) == [*SWEEP, "hydra.sweep.dir=mine"]
    assert with_folder(["model=tiny"]) == ["model=tiny"]


def test_names_hold_no_sign_that_hydra_reads() -> None:
    name = folder_of(["-m", "model.a/b@c.d-e=1,2", "optimizer.lr='tag(log,interval(1,2))'"]).partition("=")[2]
    assert name.startswith("multirun/d_e-lr-")
