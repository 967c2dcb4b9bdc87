import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from hydra import compose as compose_hydra
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from pipeline import compose
from pipeline.configuration.composed import CONF


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """params.yaml as conf/ composes to it, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    assert compose.write_params(compose.PARAMS)
    (tmp_path / "pipeline/audio/corpora").mkdir(parents=True)
    return tmp_path / compose.PARAMS


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration of two groups, in the place of the project's."""
    folder = tmp_path / "elsewhere" / "conf"
    for name, text in {
        "config.yaml": "defaults:\n  - data: made\n  - _self_\nseed: 1\nnames: [a, b]\n",
        "data/made.yaml": "minutes: 3\nhalf: ${data.minutes}\nempty: {}\n",
        "data/folder.yaml": "root: ???\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(compose, "CONF", folder)
    return folder


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["compose", *arguments])
    with pytest.raises(SystemExit) as ended:
        compose.main()
    return int(ended.value.code or 0)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_what_dvc_composes_is_what_the_stages_get(params: Path) -> None:
    assert yaml.safe_load(params.read_text()) == compose.compose()
    assert compose.stale_values(params) == []
    assert not compose.write_params(params)


def test_every_group_of_conf_is_in_the_default(params: Path) -> None:
    absent = {"cluster", "debug", "experiment", "gpu", "hydra"}
    assert {path.name for path in CONF.iterdir() if path.is_dir()} - absent <= yaml.safe_load(params.read_text()).keys()


def test_a_cluster_brings_its_launcher_and_one_process_a_gpu() -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose_hydra("config", ["cluster=slurm"], return_hydra_config=True)
    assert config.hydra.launcher._target_.endswith("QueueLauncher")
    assert config.hydra.sweeper._target_.endswith("MelismaSweeper")
    assert config.hydra.launcher.tasks_per_node == config.hydra.launcher.gpus_per_node
    assert (config.strategy.kind, config.trainer.accelerator) == ("expert_parallel", "gpu")


def test_interpolations_are_resolved_and_lists_and_empty_mappings_kept(conf: Path, tmp_path: Path) -> None:
    assert compose.write_params(tmp_path / "params.yaml")
    expected = {"data": {"minutes": 3, "half": 3, "empty": {}}, "seed": 1, "names": ["a", "b"]}
    assert yaml.safe_load((tmp_path / "params.yaml").read_text()) == expected == compose.compose()


@pytest.mark.parametrize(
    ("name", "old", "new", "line"),
    [
        ("config.yaml", "seed: 1", "seed: 2", "seed is 1 in {path}, 2 in conf/"),
        ("config.yaml", "[a, b]", "[a]", "names is ['a', 'b'] in {path}, ['a'] in conf/"),
        ("config.yaml", "seed: 1", "seed: 1\nmore: x", "more is 'absent' in {path}, 'x' in conf/"),
        ("config.yaml", "seed: 1\n", "", "seed is 1 in {path}, 'absent' in conf/"),
        ("data/made.yaml", "half: ${data.minutes}", "half: null", "data.half is 3 in {path}, None in conf/"),
        ("data/made.yaml", "empty: {}", "empty: {a: 1}", "data.empty.a is 'absent' in {path}, 1 in conf/"),
    ],
)
def test_every_value_that_differs_is_told(conf: Path, tmp_path: Path, name: str, old: str, new: str, line: str) -> None:
    path = tmp_path / "params.yaml"
    compose.write_params(path)
    assert compose.stale_values(path) == []
    edit(conf / name, old, new)
    assert line.format(path=path) in compose.stale_values(path)
    assert compose.write_params(path)
    assert compose.stale_values(path) == []


def test_a_value_that_has_yet_to_be_given_is_no_obstacle(conf: Path, tmp_path: Path) -> None:
    edit(conf / "config.yaml", "data: made", "data: folder")
    path = tmp_path / "params.yaml"
    compose.write_params(path)
    assert compose.stale_values(path) == []
    edit(path, "???", "/speech")
    assert compose.stale_values(path) == [f"data.root is '/speech' in {path}, '???' in conf/"]


def test_no_params_at_all(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    assert compose.stale_values(path) == [f"{path} does not exist"]


def test_the_command_checks_warns_and_writes(
    params: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "--check") == 0
    assert capsys.readouterr() == ("", "")
    edit(params, "\nseed: 1", "\nseed: 5")
    assert run_main(monkeypatch, "--check") == 1
    error = capsys.readouterr().err
    assert error.startswith("ERROR: params.yaml is not what conf/ composes to:\n  seed is 5 in params.yaml, 1 in conf/")
    assert "python -m pipeline.compose" in error
    assert "\nseed: 5" in params.read_text()
    assert run_main(monkeypatch) == 0
    assert "composed anew" in capsys.readouterr().out
    assert run_main(monkeypatch) == 0
    assert "up to date" in capsys.readouterr().out
    assert run_main(monkeypatch, "--check") == 0


@pytest.mark.parametrize("root", ["no/speech", "/no/such/folder"])
def test_a_corpus_that_dvc_cannot_watch_is_named(
    params: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: str
) -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose_hydra("config", ["data=folder", f"data.root={root}"])
    assert config.paths.corpus == root
    params.write_text(OmegaConf.to_yaml(config, resolve=True))
    monkeypatch.setenv("DVC_EXP_NAME", "on a disk")
    assert run_main(monkeypatch, "--check") == 2
    assert f"paths.corpus is {root}, where there is nothing that DVC could watch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "status", "said"),
    [
        (["data=manifest", "data.path=s3://bucket/train.jsonl"], 0, ""),
        (["data=manifest", "data.path=/lists/*.jsonl"], 2, "a pattern is nothing to watch: set paths.corpus to"),
        (
            ["data=asterisk", "data.root=/nowhere"],
            2,
            "install them with `sudo apt-get install asterisk-core-sounds-en-wav",
        ),
    ],
)
def test_what_lists_a_corpus_is_watched_in_its_place(
    params: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    overrides: list[str],
    status: int,
    said: str,
) -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        params.write_text(OmegaConf.to_yaml(compose_hydra("config", overrides), resolve=True))
    monkeypatch.setenv("DVC_EXP_NAME", "listed")
    assert (run_main(monkeypatch, "--check") or 0) == status
    assert said in capsys.readouterr().err


def test_without_a_corpus_on_a_disk_its_code_is_watched(params: Path) -> None:
    assert (CONF.parent / yaml.safe_load(params.read_text())["paths"]["corpus"]).is_dir()
    with initialize_config_dir(str(CONF), version_base=None):
        # A root that has yet to be given is refused by the stage, which knows what it is for.
        assert (CONF.parent / compose_hydra("config", ["data=folder"]).paths.corpus).is_dir()


@pytest.mark.parametrize(
    ("override", "key", "watched"),
    [
        ("codec.taken_from=data/gone", "codec.taken_from", "data/gone/codec"),
        ("feed.mixture={data/prepared: 1, data/gone: 1}", "feed.mixture", "data/gone"),
    ],
)
def test_prepared_data_that_are_not_there_are_named(
    params: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    override: str,
    key: str,
    watched: str,
) -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        params.write_text(
            OmegaConf.to_yaml(compose_hydra("config", [override, f"paths.corpus={params}"]), resolve=True)
        )
    monkeypatch.setenv("DVC_EXP_NAME", "mixed")
    assert run_main(monkeypatch, "--check") == 2
    assert f"{key} leads to {watched}, which does not exist; prepare these data first" in capsys.readouterr().err


@pytest.mark.parametrize("watched", ["data/mixed/b", "data/mixed", "data/mixed/b/codec"])
@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("dvc.yaml", {"stages": {"prepare": {"cmd": "true", "outs": ["data/mixed/b"]}}}),
        ("data/mixed/b.dvc", {"outs": [{"path": "b"}]}),
    ],
)
def test_what_dvc_makes_or_keeps_may_be_gone(tmp_path: Path, monkeypatch, name: str, definition, watched: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert not compose.is_watchable(watched)
    Repo.init(no_scm=True).close()
    assert not compose.is_watchable(watched)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(yaml.safe_dump(definition))
    assert compose.is_watchable(watched)
    assert not compose.is_watchable("data/gone")


def test_an_experiment_may_differ(params: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(params, "\nseed: 1", "\nseed: 5")
    monkeypatch.setenv("DVC_EXP_NAME", "faster")
    assert run_main(monkeypatch, "--check") == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("qk_rope_head_dim: 16", "qk_rope_head_dim: 5", "model.qk_rope_head_dim is 5.*even"),
        ("vocab_size: null", "vocab_size: 1000", "model.vocab_size is 1000.*need 1032; raise it"),
        ("topk_group: 2", "topk_group: 9", "model.topk_group is 9"),
        ("mtp_weight: 0.3", "mtp_weight: -1", "model.objective.mtp_weight is -1"),
    ],
)
def test_a_model_that_cannot_be_fails_at_composition(
    params: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    message: str,
) -> None:
    folder = tmp_path / "edited"
    shutil.copytree(CONF, folder)
    edit(folder / "model/small.yaml", old, new)
    monkeypatch.setattr(compose, "CONF", folder)
    before = params.read_bytes()
    assert run_main(monkeypatch) == 2
    assert re.search(f"ERROR: {message}", capsys.readouterr().err)
    assert params.read_bytes() == before, "what was there stays"
