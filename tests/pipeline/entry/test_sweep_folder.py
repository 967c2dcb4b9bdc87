"""What names a sweep's folder."""

from pipeline.entry.sweep_folder import with_folder

SWEEP = ["-m", "model=tiny,small", "optimizer.lr=1e-3,3e-4"]


def test_the_same_sweep_has_the_same_folder_however_it_is_typed() -> None:
    folder = with_folder(SWEEP)[-1]
    assert folder.startswith("hydra.sweep.dir=multirun/model-lr-")
    assert with_folder(SWEEP) == with_folder(SWEEP)
    again = ["optimizer.lr=1e-3,3e-4", "--multirun", "hydra/launcher=joblib", "sweep.seeds=3", "model=tiny,small"]
    assert with_folder(again)[-1] == folder
    assert with_folder([*SWEEP, "trainer.max_steps=5"])[-1] != folder


def test_a_folder_that_is_named_stays_and_a_single_run_has_none() -> None:
    assert with_folder([*SWEEP, "hydra.sweep.dir=mine"]) == [*SWEEP, "hydra.sweep.dir=mine"]
    assert with_folder(["model=tiny"]) == ["model=tiny"]


def test_names_hold_no_sign_that_hydra_reads() -> None:
    name = with_folder(["-m", "model.a/b@c.d-e=1,2", "optimizer.lr='tag(log,interval(1,2))'"])[-1].partition("=")[2]
    assert name.startswith("multirun/d_e-lr-")
