"""SLURM itself on this machine: a controller and two nodes, Debian's daemons on ports and in a folder of their own."""

import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ranks import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "salloc", "scontrol", "squeue", "scancel")
INSTALL = "apt-get install slurm-wlm munge"
# Daemons lie where only root looks.
SEARCHED = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
# Two nodes on one host. A job that is queued again begins after `cred_expire` seconds: SLURM takes 120 for less than 5,
# and a busy machine needs some to begin a step. What `main` runs gives way to what `urgent` does, after `GraceTime`
# seconds. Ranks meet at ports that follow from their job's number, which is to be another one for each cluster.
CONFIGURATION = """
ClusterName=drill
FirstJobId={ports[0]}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=20
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=20
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=1,sched_interval=5
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL PriorityTier=10
"""


def missing_programs() -> list[str]:
    """What of SLURM is not on this machine."""
    return [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]


class SlurmCluster:
    """Starts the daemons, and ends them by their processes.

    Args:
        folder: everything of theirs is kept there.

    Attributes:
        environment: of commands that ask this cluster.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []
        path = f"{Path(shutil.which('python') or '').parent}:{SEARCHED}"
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path, "OMP_NUM_THREADS": "1"}

    def start(self) -> None:
        """Begin, and wait until both nodes are idle."""
        for name in ("state", "spool-node1", "spool-node2"):
            (self.folder / name).mkdir()
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o600)
        ports = [free_port() for _ in range(3)]
        text = CONFIGURATION.format(host=socket.gethostname(), user=getpass.getuser(), ports=ports, folder=self.folder)
        (self.folder / "slurm.conf").write_text(text)
        own = (
            "key-file=munge.key",
            "socket=munge.socket",
            "pid-file=munge.pid",
            "log-file=munge.log",
            "seed-file=munge.seed",
        )
        places = [f"--{option.replace('=', f'={self.folder}/')}" for option in own]
        self._daemon("munged", "--force", "--foreground", *places)
        self._wait_for(lambda: (self.folder / "munge.socket").exists())
        self._daemon("slurmctld", "-D")
        self._wait_for(lambda: self.run("scontrol", "ping", check=False).endswith("UP\n"))
        for node in ("node1", "node2"):
            self._daemon("slurmd", "-D", "-N", node)
        self._wait_for(lambda: self.run("sinfo", "-h", "-p", "main", "-o", "%T %D", check=False) == "idle 2\n")

    def stop(self) -> None:
        """End all jobs and daemons."""
        self.run("scancel", "--user", getpass.getuser(), check=False)
        deadline = time.monotonic() + 30
        while self.run("squeue", "--noheader", check=False) and time.monotonic() < deadline:
            time.sleep(0.5)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def run(self, *command: str, check: bool = True, seconds: float = 900.0) -> str:
        """What a command prints, errors included."""
        ended = subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds
        )
        assert not check or ended.returncode == 0, ended.stdout
        return ended.stdout

    def is_queued(self, job: str) -> bool:
        """Whether a job waits or runs."""
        return bool(self.run("squeue", "--noheader", "--job", job, "--format=%i", check=False).strip().isdigit())

    def state_of(self, job: str) -> str:
        """What the controller knows of a job."""
        return self.run("scontrol", "--oneliner", "show", "job", job, check=False)

    def minutes_of(self, job: str) -> int:
        """For how many whole minutes a job has run since it was started last."""
        found = re.search(r"RunTime=(?:(\d+)-)?(\d+):(\d+):", self.state_of(job))
        assert found is not None
        days, hours, minutes = found.groups()
        return 1440 * int(days or 0) + 60 * int(hours) + int(minutes)

    @contextmanager
    def drained(self) -> Iterator[None]:
        """Within, no job begins: they wait for machines that are drained."""
        self.run("scontrol", "update", "NodeName=node[1-2]", "State=DRAIN", "Reason=drill")
        try:
            yield
        finally:
            self.run("scontrol", "update", "NodeName=node[1-2]", "State=RESUME")

    def _daemon(self, *command: str) -> None:
        # In a session of its own: Ctrl-C is for pytest.
        with open(self.folder / f"{command[0]}.out", "ab") as output:
            self._daemons.append(
                subprocess.Popen(
                    command, env=self.environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
                )
            )

    @staticmethod
    def _wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "SLURM does not come up"
            time.sleep(0.2)
