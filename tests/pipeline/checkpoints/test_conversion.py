import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_modules.model.configuration import DecoderConfig
from pipeline.checkpoints.conversion import ConversionOptions, convert, verify
from pipeline.checkpoints.registry import open_checkpoint
from pipeline.checkpoints.stored_tensor import CheckpointSource, DamagedCheckpointError
from pipeline.checkpoints.writing.checksums import CHECKSUMS_FILE
from pipeline.plumbing.files import read_json

SHARDS = {"shard_bytes": 30_000}
LAYOUTS = ["huggingface", "distributed", "deepseek", "lightning"]


class Killed(BaseException):
    """As sudden as Ctrl-C."""


def kill_after(n_files: int):
    """Progress that ends the process, as it were, when a piece of the file after `n_files` has been written."""
    seen: set[str] = set()

    def progress(name: str, done: int, total: int) -> None:
        seen.add(name)
        if len(seen) > n_files:
            raise Killed

    return progress


def contents(folder: Path) -> dict[str, bytes]:
    if folder.is_file():
        return {"": folder.read_bytes()}
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def config(tiny_config: DecoderConfig) -> DecoderConfig:
    return replace(tiny_config, num_nextn_predict_layers=0)


@pytest.fixture
def trained(config: DecoderConfig, random_weights, save_training, tmp_path: Path) -> Path:
    return save_training(tmp_path / "trained.ckpt", config, random_weights(config, torch.float32))


@pytest.fixture
def source(trained: Path) -> CheckpointSource:
    return open_checkpoint(trained)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["keep", "bfloat16"])
def test_a_killed_conversion_goes_on_and_ends_the_same(
    source: CheckpointSource, tmp_path: Path, layout: str, dtype: str
) -> None:
    options = ConversionOptions(dtype=dtype, n_model_parallel=2, **SHARDS)
    whole = convert(source, tmp_path / "whole" / "x", layout, options)
    target = tmp_path / "killed" / "x"
    n_done = 0 if layout == "lightning" else 1
    for _ in range(2):
        with pytest.raises(Killed):
            convert(source, target, layout, options, kill_after(n_done))
        assert [path.name for path in target.parent.iterdir()] == ["x.partial"]
    resumed = convert(source, target, layout, options)
    assert resumed.resumed_files == n_done
    assert contents(target) == contents(tmp_path / "whole" / "x")
    assert resumed.quantisation == whole.quantisation
    assert resumed.files == whole.files
    assert not list(target.parent.glob("*.partial"))


def test_fp8_errors_outlive_a_kill(source: CheckpointSource, tmp_path: Path) -> None:
    options = ConversionOptions(dtype="fp8", **SHARDS)
    whole = convert(source, tmp_path / "whole", "huggingface", options)
    with pytest.raises(Killed):
        convert(source, tmp_path / "killed", "huggingface", options, kill_after(1))
    resumed = convert(source, tmp_path / "killed", "huggingface", options)
    assert resumed.resumed_files == 1
    assert resumed.quantisation == whole.quantisation


PROGRAM = """
import os, signal, sys
from pathlib import Path
from pipeline.checkpoints.conversion import ConversionOptions, convert
from pipeline.checkpoints.registry import open_checkpoint

seen = set()

def progress(name, done, total):
    seen.add(name)
    if len(seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

source, target = map(Path, sys.argv[1:])
convert(open_checkpoint(source), target, "huggingface", ConversionOptions(shard_bytes=30_000), progress)
"""


def test_a_process_that_is_killed_leaves_what_another_goes_on_with(
    trained: Path, source: CheckpointSource, tmp_path: Path
) -> None:
    target = tmp_path / "killed"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    died = subprocess.run([sys.executable, "-c", PROGRAM, str(trained), str(target)], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    assert not target.exists()
    options = ConversionOptions(**SHARDS)
    assert convert(source, target, "huggingface", options).resumed_files == 2
    convert(source, tmp_path / "whole", "huggingface", options)
    assert contents(target) == contents(tmp_path / "whole")


def changed_source(trained: Path, options: ConversionOptions) -> ConversionOptions:
    os.utime(trained, (1, 1))
    return options


def other_options(trained: Path, options: ConversionOptions) -> ConversionOptions:
    return replace(options, dtype="bfloat16")


def torn_file(trained: Path, options: ConversionOptions) -> ConversionOptions:
    (first,) = (trained.parent / "target.partial").glob("model-00001-*")
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    return options


@pytest.mark.parametrize("change", [changed_source, other_options, torn_file])
def test_another_conversion_starts_over(trained: Path, tmp_path: Path, change) -> None:
    options = ConversionOptions(**SHARDS)
    with pytest.raises(Killed):
        convert(open_checkpoint(trained), tmp_path / "target", "huggingface", options, kill_after(1))
    options = change(trained, options)
    conversion = convert(open_checkpoint(trained), tmp_path / "target", "huggingface", options)
    assert conversion.resumed_files == 0
    convert(open_checkpoint(trained), tmp_path / "whole", "huggingface", options)
    assert contents(tmp_path / "target") == contents(tmp_path / "whole")


def test_half_a_line_in_the_journal_is_forgotten(source: CheckpointSource, tmp_path: Path) -> None:
    options = ConversionOptions(**SHARDS)
    with pytest.raises(Killed):
        convert(source, tmp_path / "target", "huggingface", options, kill_after(2))
    journal = tmp_path / "target.partial" / ".journal.jsonl"
    journal.write_text(journal.read_text()[:-20])
    with pytest.raises(Killed):
        convert(source, tmp_path / "target", "huggingface", options, kill_after(3))
    assert convert(source, tmp_path / "target", "huggingface", options).resumed_files == 3


def test_a_target_is_replaced_only_by_a_whole_one(source: CheckpointSource, tmp_path: Path) -> None:
    options = ConversionOptions(**SHARDS)
    target = tmp_path / "target"
    convert(source, target, "huggingface", options)
    before = contents(target)
    narrow = replace(options, dtype="bfloat16")
    with pytest.raises(Killed):
        convert(source, target, "huggingface", narrow, kill_after(1))
    assert contents(target) == before
    convert(source, target, "huggingface", narrow)
    assert open_checkpoint(target).tensors["lm_head.weight"].dtype == torch.bfloat16


def test_a_source_that_is_cut_off_meanwhile_leaves_nothing(
    trained: Path, source: CheckpointSource, tmp_path: Path
) -> None:
    os.truncate(trained, trained.stat().st_size // 2)
    with pytest.raises(DamagedCheckpointError, match=r"trained\.ckpt .*get the file again"):
        convert(source, tmp_path / "target", "huggingface", ConversionOptions(**SHARDS))
    assert [path.name for path in tmp_path.iterdir()] == ["trained.ckpt"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_progress_ends_with_everything(source: CheckpointSource, tmp_path: Path, layout: str) -> None:
    calls: list[tuple[str, int, int]] = []
    options = ConversionOptions(**SHARDS)
    conversion = convert(source, tmp_path / "x", layout, options, lambda *call: calls.append(call))
    done = [done for _, done, _ in calls]
    assert done == sorted(done)
    assert done[-1] == calls[0][2] <= conversion.n_bytes
    assert {name for name, _, _ in calls} <= {file.name for file in conversion.files}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_checksums_tell_a_flipped_bit(source: CheckpointSource, tmp_path: Path, layout: str) -> None:
    target = tmp_path / "x"
    conversion = convert(source, target, layout, ConversionOptions(**SHARDS))
    verify(target)
    listed = read_json(target / CHECKSUMS_FILE if target.is_dir() else tmp_path / f"x.{CHECKSUMS_FILE}")
    assert {name: entry["sha256"] for name, entry in listed.items()} == {f.name: f.sha256 for f in conversion.files}
    assert sum(file.n_bytes for file in conversion.files) == conversion.n_bytes
    largest = max(conversion.files, key=lambda file: file.n_bytes).name
    file = target / largest if target.is_dir() else target
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=f"{file.name} has changed since it was written"):
        verify(target)
    file.unlink()
    with pytest.raises((DamagedCheckpointError, FileNotFoundError), match=file.name):
        verify(target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, "dtype is 'int4'; choose one of keep"),
        ({"drop": ("norm",)}, "drop names norm; only mtp and expert_loads"),
        ({"shard_bytes": 0}, "must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConversionOptions(**options)


def test_targets_that_cannot_be_are_refused(source: CheckpointSource, trained: Path, tmp_path: Path) -> None:
    options = ConversionOptions()
    with pytest.raises(ValueError, match="layout is 'legacy'; choose one of lightning"):
        convert(source, tmp_path / "x", "legacy", options)
    with pytest.raises(ValueError, match="over its own source"):
        convert(source, trained, "lightning", options)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="is a folder, but lightning checkpoints are single files"):
        convert(source, tmp_path / "folder", "lightning", options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "trained.ckpt"]


def test_dropped_prediction_modules_are_gone(
    tiny_config: DecoderConfig, random_weights, save_training, tmp_path: Path
) -> None:
    config = replace(tiny_config, num_nextn_predict_layers=2)
    source = open_checkpoint(save_training(tmp_path / "mtp.ckpt", config, random_weights(config)))
    conversion = convert(source, tmp_path / "x", "huggingface", ConversionOptions(drop=("mtp", "expert_loads")))
    assert open_checkpoint(tmp_path / "x").config == replace(config, num_nextn_predict_layers=0)
    assert {"model.layers.3.eh_proj.weight", "model.layers.1.mlp.gate.expert_loads"} <= set(conversion.dropped)
    assert not (tmp_path / "x" / "expert_loads.safetensors").exists()
