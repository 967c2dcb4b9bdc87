from omegaconf import OmegaConf

from pipeline.configuration.sweep_files import RedactSweep


def test_the_file_of_a_sweep_loses_its_secrets_and_nothing_else(tmp_path):
    path = tmp_path / "multirun.yaml"
    path.write_text("hydra:\n  overrides:\n    task: [tracking.uri=http://bob:hunter2plus@host, seed=1]\n")
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    RedactSweep().on_job_start(config)
    assert path.read_text() == "hydra:\n  overrides:\n    task: [tracking.uri=http://host, seed=1]\n"


def test_a_single_run_has_no_such_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RedactSweep().on_job_start(OmegaConf.create({}))
    assert not list(tmp_path.iterdir())
