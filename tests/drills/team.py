"""PostgreSQL, S3 and MLflow on this machine, started by `deploy/servers.sh` with settings of their own."""

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.ranks import free_port

REPOSITORY = Path(__file__).parents[2]
SERVERS = REPOSITORY / "deploy" / "servers.sh"
# What it starts, and what Debian calls it; then what MLflow and DVC need for it.
PROGRAMS = {"postgres": "postgresql", "radosgw": "radosgw", "ceph-mon": "ceph-mon", "ceph-osd": "ceph-osd"}
MODULES = ("boto3", "dvc_s3", "flask_wtf", "psycopg2", "s3fs")
SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, Path("/usr/lib/postgresql").glob("*/bin"))])
# What the suite's own environment has no business handing on.
FOREIGN = ("MLFLOW_TRACKING_URI", "MAKEFLAGS", "MAKELEVEL", "DISPLAY", "WAYLAND_DISPLAY")


def lacking() -> str:
    """How to install what the servers need and this machine lacks; empty where nothing is."""
    packages = [package for program, package in PROGRAMS.items() if shutil.which(program, path=SEARCHED) is None]
    ways = [f"apt-get install --no-install-recommends {' '.join(packages)}"] if packages else []
    if any(importlib.util.find_spec(module) is None for module in MODULES):
        ways.append("make cluster")
    return " and ".join(ways)


@dataclass(frozen=True)
class Member:
    """Someone with an account and a key.

    Attributes:
        name: of the account.
        variables: what `servers.sh member` printed for their environment.
    """

    name: str
    variables: dict[str, str]

    @property
    def secrets(self) -> list[str]:
        """What must never be written anywhere."""
        return [self.variables["MLFLOW_TRACKING_PASSWORD"], self.variables["AWS_SECRET_ACCESS_KEY"]]


class Team:
    """The servers of a team, with ports and secrets of their own.

    Args:
        folder: where everything lies; PostgreSQL's user, who is not root, has to get there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = os.environ | {
            "SETTINGS": str(folder / "env"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        self.servers("settings")
        ports = {name: free_port() for name in ("mlflow", "postgres", "s3", "monitor")}
        settings = self.settings()
        settings |= {
            "MLFLOW_PORT": str(ports["mlflow"]),
            "MLFLOW_WORKERS": "1",
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:*,localhost:{ports['mlflow']}",
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"http://localhost:{ports['mlflow']}",
            "PGPORT": str(ports["postgres"]),
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3']}",
            "S3_MONITOR_PORT": str(ports["monitor"]),
            "S3_CAPACITY": "4G",
            "SERVERS_FOLDER": str(folder / "servers"),
        }
        (folder / "env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    @property
    def uri(self) -> str:
        """Where MLflow listens."""
        return f"http://127.0.0.1:{self.settings()['MLFLOW_PORT']}"

    def settings(self) -> dict[str, str]:
        """The settings, as the servers read them."""
        lines = (self.folder / "env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    def servers(self, *arguments: str) -> str:
        """Run `servers.sh`; return what it printed."""
        ended = subprocess.run(
            [str(SERVERS), *arguments], env=self._environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def member(self, name: str) -> Member:
        """Give someone an account and a key, or new ones."""
        exports = [line.removeprefix("export ") for line in self.servers("member", name).splitlines()]
        return Member(name, dict(line.split("=", 1) for line in exports if "=" in line))

    def administrator(self) -> dict[str, str]:
        """The environment of who administers MLflow."""
        settings = self.settings()
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": settings["MLFLOW_AUTH_ADMIN_USERNAME"],
            "MLFLOW_TRACKING_PASSWORD": settings["MLFLOW_AUTH_ADMIN_PASSWORD"],
        }

    def secrets(self) -> list[str]:
        """The servers' own secrets."""
        return [value for name, value in self.settings().items() if "SECRET" in name or "PASSWORD" in name]

    def s3(self, key: str, secret: str):  # type: ignore[no-untyped-def]
        """A client of the S3 server."""
        import boto3

        settings = self.settings()
        return boto3.client(
            "s3",
            endpoint_url=settings["MLFLOW_S3_ENDPOINT_URL"],
            region_name=settings["AWS_DEFAULT_REGION"],
            aws_access_key_id=key,
            aws_secret_access_key=secret,
        )

    def objects(self, bucket: str, owner: str = "AWS") -> dict[str, bytes]:
        """Every object of a bucket, which the key with the name `AWS` or `DVC` owns."""
        settings = self.settings()
        prefix = owner + "_"
        client = self.s3(settings[f"{prefix}ACCESS_KEY_ID"], settings[f"{prefix}SECRET_ACCESS_KEY"])
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=settings[f"{bucket}_BUCKET"])
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key: client.get_object(Bucket=settings[f"{bucket}_BUCKET"], Key=key)["Body"].read() for key in keys}

    def database(self) -> str:
        """Everything in PostgreSQL, as text."""
        return self.servers("run", "pg_dump", "--inserts")


class Clone:
    """A clone of the repository, in which a member works.

    Args:
        root: where it lies.
        origin: what it is cloned from.
        member: whose account and key commands have.
        variables: more of their environment.
    """

    def __init__(self, root: Path, origin: Path, member: Member, **variables: str) -> None:
        self.root = root
        kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        self.environment = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "GIT_CONFIG_GLOBAL": os.devnull,
            **{
                f"GIT_{role}_{what}": f"{member.name}" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
            },
            **member.variables,
            **variables,
        }
        subprocess.run(["git", "clone", "-q", str(origin), str(root)], check=True)
        self.said = ""

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Begin a command; its output is one stream."""
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def finish(self, process: subprocess.Popen[str], status: int | None = 0) -> str:
        """Wait for a command; return what it printed, which `said` collects."""
        output, _ = process.communicate()
        self.said += output
        assert status is None or process.returncode == status, output
        return output

    def run(self, *command: str, status: int | None = 0) -> str:
        """Run a command; return what it printed."""
        return self.finish(self.start(*command), status)
