import os
import signal
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import pytest
import torch

from lightning_modules.callbacks import preemption
from lightning_modules.callbacks.final_validation import FinalValidation
from lightning_modules.callbacks.preemption import Preempted, Preemption, coming_back
from lightning_modules.callbacks.resume import ResumeCheckpoint, step_checkpoints
from lightning_modules.kept_signals import keeper, signals_kept
from tests.ranks import fork_server


class Signal(L.Callback):
    """Somebody sends signals in the middle of a step."""

    def __init__(self, at_step: int, *numbers: signal.Signals) -> None:
        self.at_step = at_step
        self.numbers = numbers

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == self.at_step:
            for number in self.numbers:
                os.kill(os.getpid(), number)


def fit(fit_scripted, folder: Path, sender: Signal | None, **options: Any) -> list[tuple[str, int]]:
    resume = ResumeCheckpoint(folder, every_n_steps=100)
    callbacks = [*([sender] if sender else []), FinalValidation(), resume, Preemption(resume)]
    return fit_scripted(callbacks, max_steps=6, val_every_steps=4, **options)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_signal_saves_at_the_end_of_the_step_and_the_next_launch_goes_on(
    fit_scripted, tmp_path: Path, accumulate: int
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    # Launchers often pass on what the scheduler has sent to all: that is one request.
    with pytest.raises(Preempted) as preempted:
        fit(fit_scripted, tmp_path, Signal(1, signal.SIGTERM, signal.SIGTERM), accumulate=accumulate)
    assert preempted.value.code == 0
    assert "step 2" in str(preempted.value)
    last = step_checkpoints(tmp_path)[-1]
    assert last == tmp_path / "step-00000002.ckpt"
    assert torch.load(last, weights_only=True)["state_dict"]["weight"] == 2
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    events = fit(fit_scripted, tmp_path, None, accumulate=accumulate, resume=last)
    assert events == [("validated", 4), ("validated", 6)]


def test_a_step_that_is_validated_is_left_after_its_validation(fit_scripted, tmp_path: Path) -> None:
    with pytest.raises(Preempted):
        fit(fit_scripted, tmp_path, Signal(3, signal.SIGTERM))
    assert step_checkpoints(tmp_path)[-1] == tmp_path / "step-00000004.ckpt"
    assert fit(fit_scripted, tmp_path, None, resume=step_checkpoints(tmp_path)[-1]) == [("validated", 6)]


def test_a_signal_in_the_last_step_lets_training_end(fit_scripted, tmp_path: Path) -> None:
    assert fit(fit_scripted, tmp_path, Signal(5, signal.SIGTERM))[-1] == ("validated", 6)


def test_slurms_warning_counts_under_slurm(fit_scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    with pytest.raises(Preempted):
        fit(fit_scripted, tmp_path, Signal(2, signal.SIGUSR1))
    assert step_checkpoints(tmp_path)[-1] == tmp_path / "step-00000003.ckpt"


def ask_twice(file: Path) -> None:
    preemption.SAME_REQUEST = 0.0
    signal.signal(signal.SIGTERM, Preemption(ResumeCheckpoint(file.parent, 1))._handle)
    os.kill(os.getpid(), signal.SIGTERM)
    file.write_text("still here")
    os.kill(os.getpid(), signal.SIGTERM)
    file.write_text("too late")


def test_a_second_request_ends_the_process_at_once(tmp_path: Path) -> None:
    process = fork_server().Process(target=ask_twice, args=(tmp_path / "file",))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGTERM
    assert (tmp_path / "file").read_text() == "still here"


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of SLURM's, whose `scontrol` answers with what stands in one file and notes in another what it was told."""
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\ncat {tmp_path}/answer\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (tmp_path / "answer").write_text("JobId=7 JobState=RUNNING PreemptTime=None")
    return tmp_path


def preempt(fit_scripted, folder: Path, number: signal.Signals) -> None:
    with pytest.raises(Preempted), coming_back():
        fit(fit_scripted, folder, Signal(1, number))


@pytest.mark.parametrize(
    ("number", "answer", "told"),
    [
        (signal.SIGUSR1, "", ["requeue 7"]),
        (signal.SIGTERM, "JobState=RUNNING PreemptTime=None", ["--oneliner show job 7"]),
        # Another job takes the machines, which gives this one a while to leave; and this one was cancelled meanwhile.
        (signal.SIGTERM, "JobState=SIGNALING PreemptTime=2026-11-27", ["--oneliner show job 7", "requeue 7"]),
        (signal.SIGTERM, "JobState=COMPLETING PreemptTime=2026-11-27", ["--oneliner show job 7"]),
    ],
)
def test_a_job_is_queued_again_where_it_is_to_come_back(
    fit_scripted, scontrol: Path, number: signal.Signals, answer: str, told: list[str]
) -> None:
    (scontrol / "answer").write_text(answer)
    preempt(fit_scripted, scontrol, number)
    assert (scontrol / "told").read_text().splitlines() == told
    assert step_checkpoints(scontrol)


@pytest.mark.parametrize(
    ("number", "told"),
    [(signal.SIGUSR1, ["requeue 7"]), (signal.SIGTERM, ["--oneliner show job 7", "requeue 7"])],
)
def test_a_signal_that_comes_before_training_is_kept_for_its_first_step(
    fit_scripted, scontrol: Path, number: signal.Signals, told: list[str]
) -> None:
    (scontrol / "answer").write_text("JobState=RUNNING PreemptTime=2026-11-27")
    with signals_kept():
        os.kill(os.getpid(), number)
        with pytest.raises(Preempted) as preempted, coming_back():
            fit(fit_scripted, scontrol, None)
    assert preempted.value.step == 1
    assert (scontrol / "told").read_text().splitlines() == told
    assert signal.getsignal(number) == signal.SIG_DFL


def test_signals_are_kept_under_slurm_alone_and_from_nobody_who_listens(scontrol: Path, monkeypatch) -> None:
    before = signal.signal(signal.SIGUSR1, print)
    with signals_kept():
        assert keeper() is not None
        assert signal.getsignal(signal.SIGUSR1) is print
    signal.signal(signal.SIGUSR1, before)
    monkeypatch.delenv("SLURM_JOB_ID")
    with signals_kept():
        assert keeper() is None


def test_whoever_listened_to_the_warning_queues_the_job_again(fit_scripted, scontrol: Path) -> None:
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(step_checkpoints(scontrol)[-1].name))
    preempt(fit_scripted, scontrol, signal.SIGUSR2)
    assert heard == ["step-00000002.ckpt"]
    assert not (scontrol / "told").exists()
    signal.signal(signal.SIGUSR2, before)


def test_a_job_that_may_not_come_back_again_says_so(fit_scripted, scontrol: Path) -> None:
    def refuse(number: int, frame: object) -> None:
        raise ValueError("Job not requeued because: timed-out too many times.")

    before = signal.signal(signal.SIGUSR2, refuse)
    with (
        pytest.raises(RuntimeError, match="timed-out too many times. Training is saved; the same command"),
        coming_back(),
    ):
        fit(fit_scripted, scontrol, Signal(1, signal.SIGUSR2))
    signal.signal(signal.SIGUSR2, before)
