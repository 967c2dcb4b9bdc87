"""Tasks of a Ray cluster: the same bytes as one process writes, also when nodes and workers die."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from pipeline.preparation.configuration import RayConfig
from pipeline.preparation.engines.ray_cluster import RayEngine, connected, import_ray
from pipeline.preparation.prepare import prepare
from pipeline.preparation.sharded import ShardedWork
from tests.pipeline.preparation.engines.conftest import contents, settings


def test_that_ray_is_not_installed_is_told_with_the_remedy(
    composed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match="preparation=ray needs Ray, .*: make cluster"):
        prepare(composed("preparation=ray"), tmp_path / "prepared", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_tasks_that_would_see_no_gpu_are_refused_one(composed, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"codec\.device=cuda: Ray hides the GPUs .* preparation\.gpus=0\.125"):
        prepare(composed("preparation=ray", "codec.device=cuda"), tmp_path / "prepared", tmp_path / "cache")


def test_no_cluster_at_an_address_is_told_at_once() -> None:
    """Whether Ray is installed or not: it is not asked."""
    ray: Any = SimpleNamespace(is_initialized=lambda: False)
    with (
        pytest.raises(ValueError, match=r"preparation\.address=127\.0\.0\.1:1: no Ray cluster answers.*ray start"),
        connected(ray, "127.0.0.1:1"),
    ):
        pass


@dataclass(frozen=True)
class Deadly(ShardedWork):
    """Twelve shards, of which some kill their workers or fail."""

    folder: Path
    kills_once: int | None = None
    kills: int | None = None
    fails: int | None = None

    description: ClassVar[str] = "trying"
    unit: ClassVar[str] = "shard"
    n_shards: ClassVar[int] = 12

    def name(self, number: int) -> str:
        return f"{number}.txt"

    def written(self) -> set[int]:
        return {int(path.stem) for path in self.folder.glob("*.txt")}

    def __call__(self, number: int) -> None:
        killed = self.folder / "killed"
        if number == self.kills or (number == self.kills_once and not killed.exists()):
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self.fails:
            raise OSError(28, "No space left on device", "shard.bin")
        (self.folder / self.name(number)).write_text(f"{number}")


class Careful(Deadly):
    """Knows what to do about shards that kill."""

    def after_death(self, number: int) -> None:
        (self.folder / self.name(number)).write_text("dead")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head that computes nothing, and two nodes of two places each."""
    pytest.importorskip("ray")
    import_ray()
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    with connected(import_ray(), cluster.address):
        yield cluster
    cluster.shutdown()


@pytest.fixture
def engine(cluster) -> RayEngine:
    return RayEngine(RayConfig(cluster.address, cpus=1, gpus=0, retries=1))


@pytest.mark.ray
def test_a_cluster_writes_what_one_process_does(cluster, composed, expected, tmp_path: Path) -> None:
    prepare(composed("preparation=ray"), tmp_path / "prepared", tmp_path / "cache")
    assert contents(tmp_path / "prepared") == expected


@pytest.mark.ray
def test_a_worker_that_dies_once_costs_nothing(engine: RayEngine, tmp_path: Path) -> None:
    engine.run(Deadly(tmp_path, kills_once=3))
    assert (tmp_path / "killed").exists()
    assert {path.read_text() for path in tmp_path.glob("*.txt")} == {f"{number}" for number in range(12)}


@pytest.mark.ray
def test_a_shard_that_always_kills_is_done_with_care_or_named(engine: RayEngine, tmp_path: Path) -> None:
    engine.run(Careful(tmp_path, kills=5))
    assert (tmp_path / "5.txt").read_text() == "dead"
    assert len(list(tmp_path.glob("*.txt"))) == 12
    (tmp_path / "5.txt").unlink()
    with pytest.raises(RuntimeError, match=r"Trying 5\.txt kills its process again and again"):
        engine.run(Deadly(tmp_path, kills=5))


@pytest.mark.ray
def test_what_goes_wrong_in_a_task_is_the_error_itself(engine: RayEngine, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left on device: 'shard.bin'"):
        engine.run(Deadly(tmp_path, fails=2))


@pytest.mark.ray
def test_a_node_that_is_killed_costs_its_shards_alone(cluster, composed, expected, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=2)
    killed = threading.Event()

    def kill() -> None:
        when(lambda: any((tmp_path / "cache").glob("prepared-*/train/shard_*.json")))
        cluster.remove_node(node, allow_graceful=False)
        killed.set()

    thread = threading.Thread(target=kill)
    thread.start()
    prepare(composed("preparation=ray", "data.shard_utterances=1"), tmp_path / "prepared", tmp_path / "cache")
    thread.join()
    assert killed.is_set()
    prepare(composed("data.shard_utterances=1"), tmp_path / "alone", tmp_path / "cache")
    assert contents(tmp_path / "prepared") == contents(tmp_path / "alone")


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "kill"])
def test_a_driver_that_is_interrupted_leaves_no_task_and_is_gone_on_from(
    cluster, root: Path, composed, tmp_path: Path, number: signal.Signals
) -> None:
    places = {"preparation.address": cluster.address, "hydra.run.dir": tmp_path / "hydra"}
    places |= {f"paths.{name}": tmp_path / name for name in ("prepared", "cache", "outputs")}
    command = [sys.executable, "-m", "pipeline.prepare_data", "preparation=ray", *settings(root)]
    driver = subprocess.Popen(
        [*command, "data.shard_utterances=1", *(f"{name}={value}" for name, value in places.items())],
        stderr=subprocess.PIPE,
        text=True,
    )
    when(lambda: bool(times(tmp_path / "cache")) or driver.poll() is not None)
    driver.send_signal(number)
    _, said = driver.communicate(timeout=120)
    assert (driver.returncode, "Traceback" in said) == (130, False), said
    assert said.splitlines()[-1] == "Interrupted. The same command goes on from what was kept."
    kept = times(tmp_path / "cache")
    time.sleep(1)
    assert times(tmp_path / "cache") == kept
    prepare(composed("data.shard_utterances=1"), tmp_path / "prepared", tmp_path / "cache")
    assert kept.items() <= times(tmp_path / "prepared").items()
    prepare(composed("data.shard_utterances=1"), tmp_path / "alone", tmp_path / "another_cache")
    assert contents(tmp_path / "prepared") == contents(tmp_path / "alone")


def times(folder: Path) -> dict[str, int]:
    """When each of the shards below a folder was completed."""
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("train/shard_*.json")}


def when(happened: Callable[[], bool], seconds: float = 300.0) -> None:
    """Return when something has happened."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)
