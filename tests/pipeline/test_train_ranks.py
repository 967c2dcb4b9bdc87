"""A training on several ranks that is killed, asked to leave, and ended on a single device, through the command."""

import json
import re
import signal
from pathlib import Path

import pytest
import torch

from lightning_modules.callbacks.resume import step_checkpoints
from pipeline.plumbing.files import read_csv
from tests.pipeline.launched_ranks import ONE_DEVICE, TWO_RANKS, launch
from tests.prepared_tokens import write_prepared_tokens


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with prepared tokens."""
    write_prepared_tokens(tmp_path / "prepared")
    return tmp_path


def steps_of(history: Path) -> list[int]:
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    return [row["step"] for row in rows if "train/loss" in row]


def test_a_training_outlives_kills_a_preemption_and_its_machines(workplace: Path) -> None:
    # One rank stops in the middle of a step: it is named, then ended, and the other ends too; nothing is lost but the
    # steps since the checkpoint.
    patience = ["strategy.rank_late_seconds=4", "strategy.rank_lost_seconds=12"]
    (other, stopped), printed = launch(workplace, [*TWO_RANKS, *patience], interruption="SIGSTOP 5")
    assert stopped == -signal.SIGKILL, printed
    # By itself, or because its exchange has failed.
    assert other in (1, 2)
    assert re.search(r"Rank 1 \(process \d+ on .+\) has not .+ for \d+ s; the others wait.", printed), printed
    assert re.search(r"Rank 1 \(process \d+ on .+\) has not .+ s: the training ends. The same command goes", printed)
    (resume,) = (workplace / "outputs" / "resume").glob("*/")
    first = step_checkpoints(resume)[-1]
    assert first in (resume / "step-00000002", resume / "step-00000004")

    # One dies in the middle of a save, with its own shards written.
    (other, killed), printed = launch(workplace, TWO_RANKS, interruption="save 6")
    assert killed == -signal.SIGKILL, printed
    assert other not in (0, None)
    assert f"at step {int(first.name[-8:])} of 10" in printed
    assert (resume / "step-00000006.partial").is_dir()
    assert step_checkpoints(resume)[-1] == resume / "step-00000004"

    # One is told to leave: all save what they have, at the same step, and leave in peace.
    codes, printed = launch(workplace, TWO_RANKS, interruption="SIGTERM 6")
    assert codes == [0, 0], printed
    assert "at step 4 of 10" in printed
    assert not list(resume.glob("*.partial"))
    assert not (workplace / "outputs" / "train").exists()
    saved = int(step_checkpoints(resume)[-1].name[-8:])
    assert saved in (7, 8)
    assert f"saved step {saved} of 10" in printed
    assert steps_of(resume / "history.jsonl") == list(range(saved))

    # The last steps, on one device.
    codes, printed = launch(workplace, ONE_DEVICE, n_ranks=1)
    assert codes == [0], printed
    assert f"at step {saved} of 10" in printed
    assert not resume.exists()
    train = workplace / "outputs" / "train"
    assert [int(row["step"]) for row in read_csv(train / "history.csv") if row["train/loss"]] == list(range(10))
    assert [int(row["step"]) for row in read_csv(train / "validation.csv")] == [4, 9]
    assert (train / "metrics.json").exists()
    best = train / "checkpoint.ckpt"
    description = torch.load(best / "meta.pt" if best.is_dir() else best, weights_only=True)
    assert description["global_step"] in (5, 10)


def test_a_rank_that_is_configured_otherwise_is_refused_by_name(workplace: Path) -> None:
    codes, printed = launch(workplace, TWO_RANKS, of_last=("optimizer.lr=0.5",))
    assert 0 not in codes
    assert None not in codes
    assert "Rank 1 is configured otherwise than rank 0: optimizer.lr is 0.5 there and 0.002 here." in printed
    assert not (workplace / "outputs" / "train").exists()


def test_a_slow_rank_is_named(workplace: Path) -> None:
    codes, printed = launch(workplace, [*TWO_RANKS, "trainer.max_steps=4"], interruption="slow 1.5")
    assert codes == [0, 0], printed
    assert re.search(r"Rank 1 \(\S+\) works \d+\.\d x as long as the median rank, .*: the others wait\.", printed)
    *_, last = read_csv(workplace / "outputs" / "train" / "throughput.csv")
    first, second = (float(last[f"throughput/work_seconds_per_step/rank_{rank}"]) for rank in range(2))
    assert second > 1.4
    assert float(last["throughput/slowest_rank_to_median"]) == pytest.approx(second / first)
