"""A job of SLURM's that leaves before its training is done: it is queued again."""

import os
import re
import subprocess

# Longer than a controller takes that is busy, and shorter than the time a job is given to leave.
PATIENCE = 30.0
LEAVING = ("RUNNING", "SIGNALING")


def is_preempted() -> bool:
    """Whether SLURM wants this job's machines for another one, and has given it a while to leave them.

    One that leaves within that time counts as done, and is not queued again as one that is killed at its end is.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return False
    status, said = _scontrol("--oneliner", "show", "job", os.environ["SLURM_JOB_ID"])
    told = dict(re.findall(r"(JobState|PreemptTime)=(\S+)", said))
    return status == 0 and told.get("JobState") in LEAVING and told.get("PreemptTime", "None") != "None"


def queue_again() -> str:
    """Have SLURM end this job and queue it again, under the same number; returns why it does not, if so."""
    status, said = _scontrol("requeue", os.environ["SLURM_JOB_ID"])
    return "" if status == 0 else said or f"scontrol ended with {status}"


def _scontrol(*arguments: str) -> tuple[int, str]:
    """Its exit status, and what it said in one line."""
    try:
        ended = subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return ended.returncode, " ".join((ended.stdout + ended.stderr).split())
