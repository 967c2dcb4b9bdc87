"""A copy of the repository to run its commands in, as a user does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
from mlflow.entities import Run

REPOSITORY = Path(__file__).parents[1]
STAGES = ["prepare-data", "train", "convert-checkpoint", "evaluate", "report"]


class RepositoryCopy:
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

    def tree(self) -> str:
        """The digest of everything that is committed, dvc.lock included."""
        return self.run("git", "rev-parse", "HEAD^{tree}").strip()

    def run(self, *command: str, status: int | None = 0) -> str:
        with self.started(*command) as process:
            output, _ = process.communicate()
        assert status is None or process.returncode == status, output
        return output

    def started(self, *command: str, start_new_session: bool = False) -> subprocess.Popen[str]:
        """The command under way; stdout and stderr are one stream."""
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.root),
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        for name in ("MLFLOW_TRACKING_URI", "MAKEFLAGS", "MAKELEVEL", "DISPLAY", "WAYLAND_DISPLAY"):
            environment.pop(name, None)
        return subprocess.Popen(
            command, cwd=self.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=start_new_session,
        )  # fmt: skip

    def python(self, module: str, *arguments: str, status: int | None = 0) -> str:
        return self.run("python", "-m", module, *arguments, status=status)

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run(
            "git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-q", "--allow-empty", "-m", message
        )

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
