"""What SLURM's commands say, by programs in their place; tests/drills/test_slurm.py asks SLURM itself."""

import os
from pathlib import Path

import pytest

from pipeline.entry.slurm_queue import SlurmError, counted, ending, queued, said_by

QUEUE = "12_0|RUNNING|None\n12_1|PENDING|Resources\n13|PENDING|Resources\n"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put programs on the path that print something and end with a status."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def put(**printed: tuple[int, str]) -> None:
        for name in ("squeue", "sacct", "scontrol"):
            status, text = printed.get(name, (1, f"{name}: error: Unable to contact slurm controller"))
            (tmp_path / f"{name}.txt").write_text(text)
            path = tmp_path / name
            path.write_text(f"#!/bin/sh\ncat {tmp_path}/{name}.txt {'>&2' if status else ''}\nexit {status}\n")
            os.chmod(path, 0o755)

    return put


def test_jobs_are_counted_by_what_they_wait_for(programs) -> None:
    programs(squeue=(0, QUEUE))
    states = queued()
    assert states == {"12_0": "RUNNING", "12_1": "PENDING (Resources)", "13": "PENDING (Resources)"}
    assert counted(states, ["12_0", "12_1", "13", "14"]) == "2 pending (Resources), 1 running"


@pytest.mark.parametrize(
    ("accounting", "memory", "said"),
    [
        ((0, "CANCELLED by 1000|0:0\n"), (1, ""), "it was cancelled"),
        ((0, "OUT_OF_MEMORY|0:125\n"), (1, ""), "more memory than it was given (hydra.launcher.mem_gb)"),
        ((1, "disabled"), (0, "JobId=7 JobState=TIMEOUT ExitCode=0:15 Reason=None"), "its time was up before"),
        ((0, ""), (0, "JobId=7 JobState=FAILED ExitCode=137:0"), "it was killed, as when a machine's memory runs out"),
        ((0, ""), (0, "JobId=7 JobState=FAILED ExitCode=0:15"), "it was ended by SIGTERM"),
        ((0, ""), (0, "JobId=7 JobState=FAILED ExitCode=3:0"), "it ended with status 3"),
        ((0, ""), (0, "JobId=7 JobState=COMPLETED ExitCode=0:0"), "it left without a result"),
        ((1, ""), (1, "Invalid job id specified"), "SLURM does not know it any more"),
    ],
)
def test_the_end_of_a_job_is_told(programs, accounting, memory, said: str) -> None:
    programs(sacct=accounting, scontrol=memory)
    assert said in ending("7")


def test_a_controller_that_does_not_answer_is_told_of(programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs()
    with pytest.raises(SlurmError, match="^Unable to contact slurm controller$"):
        queued()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SlurmError, match="`squeue` cannot be run here: No such file or directory"):
        queued()


def test_complaints_lose_their_prefixes() -> None:
    text = "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid\n"
    assert said_by(text) == "invalid partition specified: x; Batch job submission failed: Invalid"
