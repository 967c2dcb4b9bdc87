"""The five stages under DVC, Hydra and MLflow, and the README's commands, in a copy with a minute of speech."""

import csv
import json
import math
import os
import re
import shutil
import signal
import socket
import sqlite3
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile

from pipeline.entry import sweep_jobs
from tests.pipeline.conftest import Told
from tests.repository_copy import REPOSITORY, STAGES, RepositoryCopy, stages_run

UP_TO_DATE = "Data and pipelines are up to date."
STABLE_METRICS = {
    "eval/loss", "eval/loss_uniform", "eval/loss_unigram", "eval/loss_bigram", "eval/bits_per_second",
    "eval/moe/max_violation/layer_1", "eval/moe/load_cv/layer_1", "audio/flatness", "audio/flatness_db",
    "audio/flatness_reference", "audio/flatness_gate", "audio/fd", "audio/fd_reference", "audio/fd_unigram_random",
    "audio/mel_flux_db", "audio/modulation_depth",
}  # fmt: skip

# Commands that would start this test anew, change the machine, or are run by other tests here.
NOT_RUN_HERE = {
    "make test": "is what runs this",
    "make lock": "asks the package index",
    "make lint": "continuous integration runs it",
    "make ui": "test_the_interface_opens_on_training_runs…",
    "python -m pipeline.serve": "test_the_server_speaks…",
    "source .venv/bin/activate": "the copy's commands find the environment on PATH",
    "dvc exp run -S data=folder -S data.root=/path/to/audio": "test_experiments_switch_groups_and_leaves",
    "dvc exp run -S model=tiny -S optimizer.lr=1e-3": "test_experiments_switch_groups_and_leaves",
    "python -m pipeline.train -m model=tiny,small optimizer.lr=1e-3,3e-4": "test_a_sweep_keeps_its_jobs_apart…",
    "dvc exp show --only-changed --drop outputs": "test_experiments_switch_groups_and_leaves",
    "dvc metrics diff": "test_experiments_switch_groups_and_leaves",
}


def test_every_stage_leaves_what_the_next_and_the_user_need(copy: RepositoryCopy) -> None:
    train, evaluation = copy.metrics("train"), copy.metrics("evaluate")
    assert {"train/loss", "val/loss"} <= train.keys()
    assert evaluation.keys() >= STABLE_METRICS
    assert all(math.isfinite(evaluation[name]) for name in STABLE_METRICS - {"audio/flatness", "audio/flatness_db"})
    assert evaluation["eval/loss_uniform"] == pytest.approx(math.log(256), rel=0.01)
    assert evaluation["eval/loss_bigram"] < evaluation["eval/loss_unigram"] < evaluation["eval/loss_uniform"]
    sounds = sorted((copy.root / "outputs/evaluate/audio").glob("*.wav"))
    assert {path.name.split("_")[0] for path in sounds} == {"real", "codec", "continuation", "unprompted"}
    assert all(soundfile.info(path).samplerate == 8000 for path in sounds)
    page = (copy.root / "outputs/report/index.html").read_text()
    assert "data:audio/wav;base64," in page
    assert not any(link in page for link in ('src="http', 'href="http', "@import"))
    report = json.loads((copy.root / "outputs/export/conversion_report.json").read_text())
    assert report["missing"] == []
    with (copy.root / "data/prepared/manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["split"] for row in rows if row["status"] == "used"} == {"train", "validation", "test"}


def test_the_export_opens_in_transformers(copy: RepositoryCopy) -> None:
    transformers = pytest.importorskip("transformers")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        copy.root / "outputs/export", output_loading_info=True
    )
    assert type(model).__name__ == "DeepseekV3ForCausalLM"
    assert not info["missing_keys"]


def test_one_run_a_train_with_the_other_stages_as_children(copy: RepositoryCopy) -> None:
    run_id = json.loads((copy.root / "outputs/train/run.json").read_text())["run_id"]
    runs = {run.info.run_id: run for run in copy.runs()}
    children = [run for run in runs.values() if run.data.tags.get("mlflow.parentRunId") == run_id]
    assert {run.info.run_name.split()[0] for run in children} >= {"convert", "evaluate", "report"}
    assert all(run.info.status == "FINISHED" for run in [runs[run_id], *children])
    train = runs[run_id].data
    assert train.params["optimizer.lr"] == "0.002"
    assert {"train/loss", "val/loss", "eval/loss", "audio/flatness_db"} <= train.metrics.keys()
    assert "n_parameters" in train.params


def test_nothing_changed_means_nothing_runs(copy: RepositoryCopy) -> None:
    assert stages_run(copy.run("dvc", "repro")) == []


def test_what_was_committed_can_be_checked_out(copy: RepositoryCopy) -> None:
    for name in ("data/prepared", "outputs/export"):
        shutil.rmtree(copy.root / name)
    for name in ("outputs/train/checkpoint.ckpt", "outputs/report/index.html", "outputs/evaluate/metrics.json"):
        (copy.root / name).unlink()
    copy.run("git", "checkout", "-q", ".")
    copy.run("dvc", "checkout")
    assert copy.run("dvc", "status").strip() == UP_TO_DATE
    assert copy.run("git", "status", "--porcelain") == ""


def test_a_changed_leaf_reruns_only_what_depends_on_it(copy: RepositoryCopy) -> None:
    copy.replace("conf/evaluate/default.yaml", "temperature: 0.9", "temperature: 0.8")
    stale = copy.run("dvc", "repro", status=255)
    assert stages_run(stale) == []
    assert "ERROR: params.yaml is not what conf/ composes to" in stale
    assert "evaluate.temperature is 0.9 in params.yaml, 0.8 in conf/" in stale
    assert "evaluate.temperature" in copy.python("pipeline.compose", "--check", status=1)
    copy.python("pipeline.compose")
    # What depends on it in turn is known once it has run.
    assert stages_run(copy.run("dvc", "repro", "--dry")) == ["evaluate"]
    assert "evaluate.temperature" in copy.run("dvc", "params", "diff")
    copy.run("git", "checkout", "-q", ".")


@pytest.mark.long
def test_an_experiment_whose_folder_is_gone_goes_on_from_its_checkpoint(copy: RepositoryCopy) -> None:
    copy.commit("before the killed experiment")
    settings = [f"-Strainer.{name}" for name in ("max_steps=40", "checkpoint_every_steps=5", "val_every_steps=30")]
    resume, folders = copy.root / "outputs/resume", copy.root / ".dvc/tmp/exps"
    with copy.started("dvc", "exp", "run", "--temp", *settings, "train", start_new_session=True) as process:
        while not list(resume.glob("*/step-*.ckpt")):
            time.sleep(0.1)
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
    before = {run.info.run_id for run in copy.runs()}
    for folder in folders.glob("tmp*"):
        shutil.rmtree(folder)
    copy.run("dvc", "exp", "run", "--queue", "-n", "again", *settings, "train")
    copy.run("dvc", "queue", "start")
    while "Success" not in (status := copy.run("dvc", "queue", "status")):
        assert "Failed" not in status, copy.run("dvc", "queue", "logs", "again")
        time.sleep(1)
    assert re.search(
        r"Going on with the interrupted training at step \d+ of 40", copy.run("dvc", "queue", "logs", "again")
    )
    assert {run.info.run_id for run in copy.runs()} == before
    assert all(run.info.status == "FINISHED" for run in copy.runs())
    assert [path.name for path in resume.iterdir()] == ["train.lock"]
    with sqlite3.connect(copy.root / "mlflow.db") as store:
        (led,) = store.execute(
            "SELECT tag_value FROM logged_model_tags WHERE tag_value LIKE '%/exps/%'"
        ).fetchall() or [()]
    assert not led


def test_experiments_switch_groups_and_leaves(copy: RepositoryCopy, recordings: Path) -> None:
    copy.commit("before the experiment")
    switches = ["data=folder", f"data.root={recordings}", "data.screening.max_rejected_fraction=0.2"]
    switches += ["schedule=warmup_constant", "optimizer.lr=1e-3"]
    output = copy.run("dvc", "exp", "run", "-n", "faster", *(word for switch in switches for word in ("-S", switch)))
    assert stages_run(output) == STAGES
    assert "is not what conf/ composes to" not in output
    assert "optimizer.lr" in copy.run("dvc", "params", "diff")
    assert "val/loss" in copy.run("dvc", "metrics", "diff")
    table = list(
        csv.DictReader(copy.run("dvc", "exp", "show", "--csv", "--only-changed", "--drop", "outputs").splitlines())
    )
    assert "faster" in {row["Experiment"] for row in table}
    assert {"val/loss", "eval/loss", "audio/fd", "optimizer.lr"} <= table[0].keys()
    assert len(table[0]) < 30
    plots = json.loads(copy.run("dvc", "plots", "show", "--json"))["data"]
    assert plots.keys() == {"Training loss", "Validation loss", "Loss by codebook"}
    drawn = plots["Validation loss"][0]["content"]["data"]["values"]
    assert [int(point["step"]) for point in drawn] == [2, 5]
    assert all(float(point["val/loss"]) > 0 for point in drawn)
    assert re.search(r"broken.wav.*rejected,\S", (copy.root / "data/prepared/manifest.csv").read_text())
    recordings_are_watched(copy, recordings)
    copy.run("git", "checkout", "-q", ".")
    copy.run("dvc", "checkout", "--force")


def recordings_are_watched(copy: RepositoryCopy, recordings: Path) -> None:
    """DVC sees a recording that is new, and that it has gone again; links to files count as files."""

    def stale() -> bool:
        return "recordings" in copy.run("dvc", "status", "prepare-data")

    assert not stale()
    added = recordings / "added.wav"
    added.symlink_to(next(recordings.glob("*.wav")))
    assert stale()
    added.unlink()
    assert not stale()


def test_a_stage_runs_straight_from_conf_and_says_what_is_wrong(copy: RepositoryCopy) -> None:
    output = copy.python("pipeline.train", "trainer.max_steps=2", "tracking=none", "paths.outputs=elsewhere")
    assert not any(noise in output for noise in ("weights_only", "Tip:", "Warning", "GPU available", "deprecated"))
    assert (copy.root / "elsewhere/train/checkpoint.ckpt").exists()
    assert not any(path.is_dir() for path in (copy.root / "elsewhere/resume").iterdir())
    wrong = copy.python("pipeline.train", "model.qk_rope_head_dim=5", "tracking=none", status=2)
    assert "model.qk_rope_head_dim is 5; rotary dimensions come in pairs" in wrong
    misspelt = copy.python("pipeline.train", "+optimizer.weight_decy=0.1", "tracking=none", status=2)
    assert "optimizer.weight_decy is not a setting; did you mean `weight_decay`?" in misspelt


@pytest.fixture
def sweep(
    copy: RepositoryCopy,
    typed: Callable[..., Told],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str]]:
    """Train a sweep on the copy's data in this process, which has imported already what takes seconds each time."""
    monkeypatch.chdir(copy.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy.root / 'mlflow.db'}")
    at_exit: list[Callable[[], None]] = []
    kept = SimpleNamespace(register=lambda say, folder: at_exit.append(partial(say, folder)))
    monkeypatch.setattr(sweep_jobs, "atexit", kept)

    def run(*words: str) -> tuple[int, str]:
        status, *told = typed("train", "-m", *words)
        at_exit.pop()()
        return status, "".join(told) + capsys.readouterr().out

    return run


def test_a_sweep_keeps_its_jobs_apart_and_survives_a_failing_one(
    copy: RepositoryCopy, sweep: Callable[..., tuple[int, str]]
) -> None:
    words = ["debug=smoke", "model=tiny,small", "optimizer.lr=1e-3,-1", "trainer.max_steps=1", "hydra.sweep.dir=sweep"]
    status, output = sweep(*words)
    assert status == 2
    assert "optimizer.lr and optimizer.eps must be positive" in output
    losses = [json.loads(path.read_text())["val/loss"] for path in sorted(copy.root.glob("sweep/*/train/metrics.json"))]
    assert len(losses) == 2
    assert losses[0] != losses[1]
    runs = copy.runs()
    parent = next(run for run in runs if run.info.run_name.startswith("sweep"))
    jobs = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.info.status for run in jobs) == ["FAILED", "FAILED", "FINISHED", "FINISHED"]
    failures = [run.data.tags["failure"] for run in jobs if run.info.status == "FAILED"]
    assert all("optimizer.lr" in failure for failure in failures)
    assert parent.info.status == "FAILED"
    assert "2 of 4 jobs finished, 2 failed:" in output
    finished = [run for run in jobs if run.info.status == "FINISHED"]
    best = min(finished, key=lambda run: run.data.metrics["sweep/objective"])
    assert f", run {best.info.run_id}." in output
    assert all((copy.root / "sweep" / str(number) / "config.yaml").exists() for number in range(4))
    assert parent.data.metrics["sweep/best_objective"] == pytest.approx(min(losses))


def test_the_same_command_finishes_a_sweep(copy: RepositoryCopy, sweep: Callable[..., tuple[int, str]]) -> None:
    words = ["debug=smoke", "model=tiny", "optimizer.lr=1e-3,2e-3", "trainer.max_steps=1", "sweep.seeds=2"]
    _, output = sweep(*words)
    assert "Best of 2 configurations: optimizer.lr=" in output
    (folder,) = copy.root.glob("multirun/lr-*")
    # As a sweep leaves it that was killed during one job, while another one failed.
    (folder / "1" / "job.json").unlink()
    shutil.rmtree(folder / "1" / "train")
    failed = json.loads((folder / "2" / "job.json").read_text()) | {"failure": "the disk is full"}
    (folder / "2" / "job.json").write_text(json.dumps(failed))
    kept = (folder / "0" / "train" / "metrics.json").stat().st_mtime_ns
    _, again = sweep(*words)
    assert "2 of 4 jobs are in" in again
    assert "running 1, 2." in again
    assert "4 of 4 jobs finished." in again
    assert (folder / "0" / "train" / "metrics.json").stat().st_mtime_ns == kept
    parent = next(run for run in copy.runs() if run.info.run_id == (folder / "parent_run.txt").read_text().strip())
    assert (parent.info.status, parent.data.tags["sweep.finished"]) == ("FINISHED", "4")
    done = copy.python("pipeline.train", "-m", *words)
    assert done.index("4 of 4 jobs are in") < done.index("Best of 2 configurations: optimizer.lr=")


def readme_commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "README.md").read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("command", [c for c in readme_commands() if c not in NOT_RUN_HERE])
def test_the_readme_s_commands_work(copy: RepositoryCopy, recordings: Path, command: str) -> None:
    if command.startswith("make"):
        # The environment of these tests stands for the one that make would build.
        (copy.root / ".venv").mkdir(exist_ok=True)
        for name in ("dependencies", "dependencies-cuda", "installed", "installed-cuda"):
            (copy.root / ".venv" / name).touch()
    if "data=folder" in command:
        command += " data.screening.max_rejected_fraction=0.2 tracking=none"
    output = copy.run(*command.replace("/path/to/audio", str(recordings)).split())
    assert "Traceback" not in output
    if "data=folder" in command:
        manifest = (copy.root / "data/prepared/manifest.csv").read_text()
        assert re.search(r"broken.wav.*rejected,\S", manifest)
        # What comes after it in the README goes on with what was trained.
        copy.run("dvc", "checkout", "--force", "data/prepared")


def test_the_interface_opens_on_training_runs_and_on_another_port_where_its_own_is_taken(copy: RepositoryCopy) -> None:
    assert "make ui" in readme_commands()
    assert "python -m pipeline.ui port=5000" in copy.run("make", "-n", "--no-print-directory", "ui")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with copy.started("python", "-m", "pipeline.ui", f"port={port}") as interface:
            said = []
            for line in interface.stdout:
                said.append(line)
                if "training runs are at" in line:
                    break
            address = re.search(
                r"http://127.0.0.1:(\d+)/#/experiments/(\d+)/runs\?workflowType=machine_learning", said[-1]
            )
            assert address, "".join(said)
            assert f"Port {port} is taken; using {address[1]}." in "".join(said)
            page = urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/", timeout=30).read()
            assert b"MLflow" in page
            query = f"http://127.0.0.1:{address[1]}/api/2.0/mlflow/experiments/get?experiment_id={address[2]}"
            assert json.load(urllib.request.urlopen(query, timeout=30))["experiment"]["name"] == "melisma"
            interface.terminate()
            assert interface.wait(timeout=30) == 0
    with socket.socket() as free:
        # Nothing is left to answer once the command has ended.
        assert free.connect_ex(("127.0.0.1", int(address[1]))) != 0


def test_the_server_speaks_with_what_was_trained(copy: RepositoryCopy) -> None:
    assert "python -m pipeline.serve" in readme_commands()
    with copy.started("python", "-m", "pipeline.serve", "port=0") as server:
        address = re.search(r"http://127.0.0.1:\d+/", server.stdout.readline())
        assert address
        assert b"Melisma speaks" in urllib.request.urlopen(address[0], timeout=30).read()
        body = json.dumps({"seconds": 0.5, "seed": 1}).encode()
        asked = urllib.request.Request(f"{address[0]}v1/audio/speech", body, {"Content-Type": "application/json"})
        assert urllib.request.urlopen(asked, timeout=120).read(4) == b"RIFF"
        server.terminate()
        assert server.wait(timeout=60) == 0
