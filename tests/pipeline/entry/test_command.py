"""Commands as they are typed: what they import, what they refuse, and how."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.entry import ending
from tests.conftest import TINY
from tests.pipeline.conftest import Told

REPOSITORY = Path(__file__).parents[3]
COMMANDS = (
    "prepare_data",
    "train",
    "convert_checkpoint",
    "evaluate",
    "report",
    "plan",
    "compliance",
    "stream",
    "serve",
)
HEAVY = {"torch", "lightning", "mlflow", "transformers", "scipy", "sklearn", "matplotlib", "torchaudio", "numpy"}

COMPILERS = {"torch._dynamo", "torch.distributed.tensor", "sympy", "scipy.stats", "lightning", "mlflow"}


def test_a_command_that_refuses_a_value_has_imported_nothing_heavy() -> None:
    script = f"""
import importlib, sys
for name in {COMMANDS}:
    importlib.import_module("pipeline." + name)
sys.argv = ["train", "trainer.batch_size=0"]
try:
    importlib.import_module("pipeline.train").main()
except SystemExit as ended:
    print(ended.code, sorted({HEAVY} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert ended.stdout == "2 []\n"
    assert ended.stderr == "ERROR: trainer.batch_size is 0; it must be at least 1.\n"


def test_what_only_compiles_shards_or_trains_is_imported_by_nobody_else() -> None:
    """Seconds of every command's start."""
    script = f"""
import sys
import pipeline.conversion.convert, pipeline.evaluation.evaluate, pipeline.reporting.report, pipeline.streaming.stream
from pipeline.checkpoints.names import own_tensors
from lightning_modules.model.configuration import DecoderConfig
own_tensors({TINY})
print({COMPILERS} & set(sys.modules))
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"


@pytest.mark.parametrize("stage", COMMANDS)
def test_help_is_the_command_s_own(typed: Callable[..., Told], stage: str) -> None:
    status, told, _ = typed(stage, "--help")
    module = importlib.import_module(f"pipeline.{stage}")
    assert status == 0
    assert told.startswith(str(module.__doc__).splitlines()[0])
    assert f"python -m pipeline.{stage}" in told
    assert "--traceback" in told
    assert "_common" not in told


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["modl=tiny"], "modl is not a setting; did you mean `model`?"),
        (["+modl=tiny"], "`modl` is neither a group nor a setting; did you mean `model`?"),
        (["+logger=wandb"], "`logger` is neither a group nor a setting; known are `data`,"),
        (["+gpu=h100"], "`gpu` is neither a group nor a setting"),
        (["model=tny"], "model=tny is not a choice; did you mean `tiny`?"),
        (["model=3"], "The settings cannot be composed: Config group override must be"),
        (["model.hiden_size=3"], "model.hiden_size is not a setting; did you mean `hidden_size`?"),
        (["+trainer.anomalies.spik=stop"], "trainer.anomalies.spik is not a setting; did you mean `spike`?"),
        (["+precision.bits=3"], "precision.bits is not a setting"),
        (["+optimizer.lr=3"], "optimizer.lr is there already; set it without the leading +."),
        (["trainer"], "`trainer` cannot be read: a setting is typed as key=value"),
        (["optimizer.lr=1e-3,1e-4"], "`optimizer.lr=1e-3,1e-4` lists values; add -m for a job with each, or"),
        (["~model"], "model is missing from the configuration"),
        (["data=folder"], "data.root has to be given: add data.root=…"),
        (["data=_common"], "data=_common is a part that other files under conf/data share, and no choice."),
        (["codec=_mel_rvq"], "codec=_mel_rvq is a part"),
        (["seed=abc"], "seed is 'abc'; it takes a whole number from 0 to 4294967295."),
        (["seed=-1"], "seed is -1"),
        (["paths.outputs="], "paths.outputs is empty; give a folder."),
        (["optimizer.lr=fast"], "optimizer.lr is 'fast'; it takes a value of type float."),
        (["trainer.accelerator=cpuu"], "trainer.accelerator is 'cpuu'; choose cpu or gpu."),
        (["--config-dir", ".", "--config-name", "nothing"], "Cannot find primary config 'nothing'"),
    ],
)
def test_a_mistake_is_told_in_one_line(typed: Callable[..., Told], arguments: list[str], sentence: str) -> None:
    # A command that has no use for most of these groups refuses mistakes in them all the same.
    status, output, told = typed("report", *arguments)
    assert (status, output) == (2, "")
    assert told.startswith(f"ERROR: {sentence}")
    assert told.count("\n") == 1


def test_the_traceback_is_shown_on_demand(typed: Callable[..., Told]) -> None:
    status, _, told = typed("plan", "seed=abc", "--traceback")
    assert status == 2
    assert told.startswith("Traceback (most recent call last):")
    assert "check_experiment" in told
    assert told.splitlines()[-1] == "ERROR: seed is 'abc'; it takes a whole number from 0 to 4294967295."


def test_the_other_ranks_leave_it_to_the_first_to_name_a_wrong_setting(
    typed: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(ending, "FAREWELL_SECONDS", 0.0)
    assert typed("train", "seed=abc") == (2, "", "")


def test_a_failing_job_is_named_at_once_and_the_others_run(typed: Callable[..., Told], tmp_path: Path) -> None:
    status, _, told = typed("compliance", "-m", "output=jsonn,yaml", f"hydra.sweep.dir={tmp_path}")
    lines = told.splitlines()
    assert status == 2
    assert lines[0] == "ERROR: output=jsonn: output is 'jsonn'; choose table or json."
    assert lines[1] == "ERROR: output=yaml: output is 'yaml'; choose table or json."
    assert lines[-1].startswith("ERROR: Of the sweep's jobs at least one failed, and the others went on. output=jsonn:")


@pytest.mark.parametrize(("stage", "key"), [("train", "outputs"), ("evaluate", "outputs"), ("prepare_data", "cache")])
def test_a_place_that_cannot_be_written_to_is_named_before_any_work(
    typed: Callable[..., Told], tmp_path: Path, stage: str, key: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    status, _, told = typed(stage, f"paths.{key}={tmp_path}/file/below")
    assert status == 2
    assert told == (
        f"ERROR: paths.{key} is {tmp_path}/file/below, but {tmp_path}/file is not a folder; choose another place.\n"
    )
