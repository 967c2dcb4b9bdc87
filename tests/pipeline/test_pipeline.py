"""The five stages under DVC, Hydra and MLflow, in a copy of the repository, on a minute of speech."""

import contextlib
import csv
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import pytest
import soundfile
from mlflow.entities import Run

REPOSITORY = Path(__file__).parents[2]
STAGES = ["prepare-data", "train", "convert-checkpoint", "evaluate", "report"]
STABLE_METRICS = {
    "eval/loss", "eval/loss_uniform", "eval/loss_unigram", "eval/loss_bigram", "eval/bits_per_second",
    "moe/max_violation/layer_1", "moe/load_cv/layer_1", "audio/flatness", "audio/flatness_db",
    "audio/flatness_reference", "audio/flatness_gate", "audio/fd", "audio/fd_reference", "audio/fd_unigram_random",
    "audio/mel_flux_db", "audio/modulation_depth",
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("espeak_available")


class Copy:
    """A copy of the repository, with `debug=smoke` as its default, in which commands are run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for name in listed.splitlines():
            if (REPOSITORY / name).is_file() and not name.startswith("tests/") and name != "dvc.lock":
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, root / name)
        self.replace("conf/config.yaml", "debug: null", "debug: smoke")
        self.run("git", "init", "-q")
        self.python("pipeline.compose")
        self.commit("start")

    def run(self, *command: str, status: int | None = 0) -> str:
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.root),
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        for name in ("MLFLOW_TRACKING_URI", "MAKEFLAGS", "MAKELEVEL"):
            environment.pop(name, None)
        result = subprocess.run(
            command, cwd=self.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert status is None or result.returncode == status, result.stdout
        return result.stdout

    def python(self, module: str, *arguments: str, status: int | None = 0) -> str:
        return self.run("python", "-m", module, *arguments, status=status)

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-q", "-m", message)

    def replace(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))

    def metrics(self, stage: str) -> dict[str, float]:
        return json.loads((self.root / "outputs" / stage / "metrics.json").read_text())

    def runs(self) -> list[Run]:
        client = mlflow.MlflowClient(f"sqlite:///{self.root / 'mlflow.db'}")
        return client.search_runs([e.experiment_id for e in client.search_experiments()])


def stages_run(output: str) -> list[str]:
    return [stage for stage in STAGES if f"Running stage '{stage}'" in output]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The copy, after its first `dvc repro`."""
    copy = Copy(tmp_path_factory.mktemp("melisma"))
    assert stages_run(copy.run("dvc", "repro")) == STAGES
    copy.commit("first run")
    return copy


def test_every_stage_leaves_what_the_next_and_the_user_need(copy: Copy) -> None:
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


def test_the_export_opens_in_transformers(copy: Copy) -> None:
    transformers = pytest.importorskip("transformers")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        copy.root / "outputs/export", output_loading_info=True
    )
    assert type(model).__name__ == "DeepseekV3ForCausalLM"
    assert not info["missing_keys"]


def test_one_run_a_train_with_the_other_stages_as_children(copy: Copy) -> None:
    run_id = json.loads((copy.root / "outputs/train/run.json").read_text())["run_id"]
    runs = {run.info.run_id: run for run in copy.runs()}
    children = [run for run in runs.values() if run.data.tags.get("mlflow.parentRunId") == run_id]
    assert {run.info.run_name for run in children} >= {"convert-checkpoint", "evaluate", "report"}
    assert all(run.info.status == "FINISHED" for run in [runs[run_id], *children])
    train = runs[run_id].data
    assert train.params["optimizer.lr"] == "0.002"
    assert {"train/loss", "val/loss", "eval/loss", "audio/flatness_db"} <= train.metrics.keys()
    assert "n_parameters" in train.params


def test_nothing_changed_means_nothing_runs(copy: Copy) -> None:
    assert stages_run(copy.run("dvc", "repro")) == []


def test_a_changed_leaf_reruns_only_what_depends_on_it(copy: Copy) -> None:
    copy.replace("conf/evaluate/default.yaml", "temperature: 0.9", "temperature: 0.8")
    stale = copy.run("dvc", "repro")
    assert stages_run(stale) == []
    assert "WARNING: params.yaml is not what conf/ composes to" in stale
    assert "evaluate.temperature is 0.9 in params.yaml, 0.8 in conf/" in stale
    assert "evaluate.temperature" in copy.python("pipeline.compose", "--check", status=1)
    copy.python("pipeline.compose")
    assert stages_run(copy.run("dvc", "repro")) == ["evaluate", "report"]
    assert "evaluate.temperature" in copy.run("dvc", "params", "diff")


def test_experiments_switch_groups_and_leaves(copy: Copy) -> None:
    copy.commit("before the experiment")
    output = copy.run("dvc", "exp", "run", "-n", "faster", "-S", "schedule=warmup_constant", "-S", "optimizer.lr=1e-3")
    assert stages_run(output) == STAGES[1:]
    assert "is not what conf/ composes to" not in output
    assert "optimizer.lr" in copy.run("dvc", "params", "diff")
    assert "val/loss" in copy.run("dvc", "metrics", "diff")
    assert "faster" in copy.run("dvc", "exp", "show", "--csv")
    copy.run("dvc", "plots", "show", "-o", "plots")
    assert "vega" in (copy.root / "plots/index.html").read_text()
    copy.run("git", "checkout", "-q", ".")


def test_a_stage_runs_straight_from_conf_and_says_what_is_wrong(copy: Copy) -> None:
    copy.python("pipeline.train", "trainer.max_steps=2", "tracking=none", "paths.outputs=elsewhere")
    assert (copy.root / "elsewhere/train/checkpoint.ckpt").exists()
    assert not (copy.root / "elsewhere/resume").exists()
    wrong = copy.python("pipeline.train", "model.qk_rope_head_dim=5", "tracking=none", status=1)
    assert "model.qk_rope_head_dim is 5; rotary dimensions come in pairs" in wrong
    misspelt = copy.python("pipeline.train", "+optimizer.weight_decy=0.1", "tracking=none", status=1)
    assert "optimizer.weight_decy is not a setting; did you mean `weight_decay`?" in misspelt


def test_a_sweep_keeps_its_jobs_apart_and_survives_a_failing_one(copy: Copy) -> None:
    output = copy.python(
        "pipeline.train",
        "-m",
        "model=tiny,small",
        "optimizer.lr=1e-3,-1",
        "trainer.max_steps=1",
        "hydra.sweep.dir=sweep",
        status=1,
    )
    assert "optimizer.lr and optimizer.eps must be positive" in output
    losses = [json.loads(path.read_text())["val/loss"] for path in sorted(copy.root.glob("sweep/*/train/metrics.json"))]
    assert len(losses) == 2
    assert losses[0] != losses[1]
    runs = copy.runs()
    parent = next(run for run in runs if run.info.run_name.startswith("sweep"))
    jobs = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.info.status for run in jobs) == ["FINISHED", "FINISHED"]
    assert parent.data.metrics["sweep/best_objective"] == pytest.approx(min(losses))


# Commands that would start this test anew, change the machine, or were run by the tests above.
NOT_RUN_HERE = {
    "make test": "is what runs this",
    "make lock": "asks the package index",
    "make lint": "continuous integration runs it",
    "source .venv/bin/activate": "the copy's commands find the environment on PATH",
    "dvc exp run -S model=tiny -S optimizer.lr=1e-3": "test_experiments_switch_groups_and_leaves",
    "python -m pipeline.train -m model=tiny,small optimizer.lr=1e-3,3e-4": "test_a_sweep_keeps_its_jobs_apart…",
    "dvc exp show": "test_experiments_switch_groups_and_leaves",
    "dvc metrics diff": "test_experiments_switch_groups_and_leaves",
}


def readme_commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "README.md").read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def recordings(copy: Copy) -> Path:
    """A folder of good speech and one broken file."""
    folder = copy.root / "recordings"
    folder.mkdir()
    for path in sorted((copy.root / "data/cache").glob("espeak-*/shard_000/*.wav"))[:15]:
        shutil.copy(path, folder)
    (folder / "broken.wav").write_text("not audio")
    return folder


@pytest.mark.parametrize("command", [c for c in readme_commands() if c not in NOT_RUN_HERE and c != "make ui"])
def test_the_readme_s_commands_work(copy: Copy, recordings: Path, command: str) -> None:
    if command.startswith("make"):
        # The environment of these tests stands for the one that make would build.
        (copy.root / ".venv").mkdir(exist_ok=True)
        (copy.root / ".venv/installed").touch()
    overrides = "data.screening.max_rejected_fraction=0.2"
    if "data=folder" in command:
        command += f" {'-S ' if command.startswith('dvc') else ''}{overrides}"
        command += " tracking=none" if command.startswith("python") else ""
    output = copy.run(*command.replace("/path/to/audio", str(recordings)).split())
    assert "Traceback" not in output
    if "data=folder" in command:
        manifest = (copy.root / "data/prepared/manifest.csv").read_text()
        assert re.search(r"broken.wav.*rejected,\S", manifest)
    if command.startswith("dvc"):
        copy.run("git", "checkout", "-q", ".")


def test_the_interface_opens(copy: Copy) -> None:
    assert "make ui" in readme_commands()
    command = copy.run("make", "-n", "--no-print-directory", "ui").strip().splitlines()[-1]
    assert "--host 127.0.0.1" in command
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(command.replace("5000", str(port)).split(), cwd=copy.root, start_new_session=True)
    try:
        for _ in range(120):
            with contextlib.suppress(urllib.error.URLError):
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                break
            time.sleep(0.5)
        assert b"MLflow" in page
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
