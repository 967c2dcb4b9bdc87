"""SLURM's queue: which jobs of this user are in it, and what became of one that is not any more."""

import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping

PATIENCE = 60.0
# What ended a job, by SLURM's name for it.
ENDINGS = {
    "CANCELLED": "it was cancelled",
    "TIMEOUT": "its time was up before it could save (hydra.launcher.timeout_min, hydra.launcher.signal_delay_s)",
    "OUT_OF_MEMORY": "it took more memory than it was given (hydra.launcher.mem_gb)",
    "NODE_FAIL": "its machine failed",
    "BOOT_FAIL": "its machine did not start",
    "PREEMPTED": "another job took its machines",
    "COMPLETED": "it left without a result",
    "DEADLINE": "its deadline had passed",
}


class SlurmError(RuntimeError):
    """SLURM did not do what it was asked for."""


def ask(*command: str) -> str:
    """What one of SLURM's commands prints.

    Raises:
        SlurmError: what it says of its failure, or that it is not there.
    """
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except OSError as error:
        raise SlurmError(f"`{command[0]}` cannot be run here: {error.strerror}.") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"`{command[0]}` has not answered for {PATIENCE:.0f} s.") from None
    if ended.returncode != 0:
        raise SlurmError(said_by(ended.stderr) or f"`{command[0]}` ended with {ended.returncode}.")
    return ended.stdout


def said_by(text: str) -> str:
    """What SLURM complains of, in one line: `sbatch: error: invalid partition specified: x` and lines like it."""
    lines = [re.sub(r"^\w+: (error: |fatal: )?", "", line).strip() for line in text.splitlines()]
    return "; ".join(line for line in lines if line)


def queued() -> dict[str, str]:
    """This user's jobs that wait or run, array elements one by one: {id: state, and what it waits for}.

    Raises:
        SlurmError: there is no answer.
    """
    lines = ask("squeue", "--me", "--array", "--noheader", "--format=%i|%T|%r").splitlines()
    return {job: state if reason == "None" else f"{state} ({reason})" for job, state, reason in map(_fields, lines)}


def _fields(line: str) -> list[str]:
    return line.split("|", 2)


def ending(job: str) -> str:
    """Why a job that left nothing has ended, as far as SLURM remembers."""
    state, code = _accounted(job) or _remembered(job)
    if state in ENDINGS:
        return ENDINGS[state]
    return _of_exit(code) if state else "SLURM does not know it any more"


def _of_exit(code: str) -> str:
    """In words: "3:0" is an exit status, "0:9" a signal, and "137:0" what a shell makes of one."""
    status, number = map(int, code.split(":"))
    number = number or max(status - 128, 0)
    if number == signal.SIGKILL:
        return "it was killed, as when a machine's memory runs out"
    return f"it was ended by {signal.Signals(number).name}" if number else f"it ended with status {status}"


def _accounted(job: str) -> tuple[str, str] | None:
    """State and exit code by SLURM's accounting, which not every cluster has."""
    try:
        lines = ask("sacct", "--noheader", "--parsable2", "--allocations", "--format=State,ExitCode", "--jobs", job)
    except SlurmError:
        return None
    found = [line.split("|") for line in lines.splitlines() if line]
    # "CANCELLED by 1000".
    return (found[-1][0].split()[0], found[-1][1]) if found else None


def _remembered(job: str) -> tuple[str, str]:
    """The same by the controller, which forgets a job minutes after its end."""
    try:
        said = ask("scontrol", "--oneliner", "show", "job", job)
    except SlurmError:
        return "", ""
    told = dict(re.findall(r"(JobState|ExitCode)=(\S+)", said))
    return told.get("JobState", ""), told.get("ExitCode", "")


def counted(states: Mapping[str, str], jobs: Iterable[str]) -> str:
    """How jobs fare, in a few words: `2 running, 3 pending (Priority)`."""
    counts = Counter(states[job] for job in jobs if job in states)
    return ", ".join(f"{n} {_in_words(state)}" for state, n in counts.most_common())


def _in_words(state: str) -> str:
    name, _, reason = state.partition(" ")
    return " ".join([name.lower().replace("_", " "), reason]).strip()
