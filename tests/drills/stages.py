"""The five stages on a few seconds of speech, each run in a process of its own, and what they have to come back to."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from pipeline.configuration.composed import CONF, Folders
from tests.drills.injection import Fault, in_another_process
from tests.drills.tally import LostError

STAGES = ("prepare", "train", "convert", "evaluate", "report")
SMALL = [
    "debug=smoke", "tracking=none", "data.minutes=0.4", "data.workers=1", "data.reference_utterances=2",
    "data.shard_utterances=3", "codec.codebook_size=16", "codec.fit_frames=200", "codec.kmeans_iterations=2",
    "codec.griffin_lim_iterations=1", "trainer.sequence_length=64", "trainer.batch_size=2", "evaluate.n_prompted=1",
    "evaluate.n_unprompted=1", "evaluate.seconds=0.6", "evaluate.prompt_seconds=0.2", "conversion.clips=1",
    "conversion.clip_seconds=0.3", "conversion.held_out_tokens=100", "data.split.validation=0.2", "data.split.test=0.2",
]  # fmt: skip
# Speeds and dates, which no two runs share.
UNSHARED = ("cache/", "outputs/report/", "outputs/train/throughput.csv")
PASSING = ("throughput", "tokens_per_second", "seconds", "model_flops", "created", "time", "path", "date")


class Workplace:
    """A folder with everything that the stages write, and a copy of it that nothing went wrong with.

    Args:
        root: an empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.reference = root.with_name(f"{root.name}-reference")
        with hydra.initialize_config_dir(str(CONF), version_base=None):
            paths = [f"paths.{name}={root}/{name}" for name in ("prepared", "cache", "outputs")]
            config = hydra.compose("config", [*SMALL, *paths], return_hydra_config=True)
        # Stages ask it whether they are a job of a sweep.
        HydraConfig.instance().set_config(config)
        values = OmegaConf.to_container(_without_hydra(config), resolve=True)
        assert isinstance(values, dict)
        self.values: dict[str, Any] = {str(key): value for key, value in values.items()}

    def build(self, stages: tuple[str, ...] = STAGES) -> dict[str, int]:
        """Run the stages once with nothing wrong, and return how many file operations each took."""
        counts = {}
        for stage in stages:
            if stage != "prepare":
                self._keep(f"before-{stage}")
            ended = in_another_process(self.work(stage), self.root, Fault())
            if ended.status != 0:
                raise LostError(f"{stage} fails with nothing wrong: {ended.said}")
            counts[stage] = int(ended.said)
            self._keep(f"after-{stage}")
        return counts

    def work(self, stage: str) -> Callable[[], object]:
        """The stage, to be called."""
        return lambda: _run(stage, self.values, self.root)

    def begin(self, stage: str) -> None:
        """Put everything back to where the stage begins."""
        shutil.rmtree(self.root, ignore_errors=True)
        if stage == "prepare":
            # The recordings take longest, and are made in one process apart.
            shutil.copytree(self.reference / "after-prepare" / "cache", self.root / "cache")
        else:
            shutil.copytree(self.reference / f"before-{stage}", self.root)

    def compare(self, stage: str) -> None:
        """Make sure that a stage left what it leaves with nothing wrong, and nothing beside.

        Raises:
            LostError: naming what differs.
        """
        found, expected = contents(self.root), contents(self.reference / f"after-{stage}")
        if left := sorted(found.keys() - expected.keys()):
            raise LostError(f"{left[0]} was left behind")
        if gone := sorted(expected.keys() - found.keys()):
            raise LostError(f"{gone[0]} is missing")
        if changed := sorted(name for name, digest in expected.items() if found[name] != digest):
            raise LostError(f"{changed[0]} has other bytes")

    def _keep(self, name: str) -> None:
        shutil.copytree(self.root, self.reference / name, dirs_exist_ok=True)


def _without_hydra(config: DictConfig) -> DictConfig:
    """The configuration without Hydra's own."""
    return OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])


def _run(stage: str, values: Mapping[str, Any], root: Path) -> object:
    folders = Folders(root / "outputs", root / "outputs")
    if stage == "prepare":
        from pipeline.preparation.prepare import prepare

        return prepare(values, root / "prepared", root / "cache")
    if stage == "train":
        from pipeline.training.train import train

        return train(values, folders)
    if stage == "convert":
        from pipeline.conversion.convert import convert_checkpoint

        return convert_checkpoint(values, folders)
    if stage == "evaluate":
        from pipeline.evaluation.evaluate import evaluate

        return evaluate(values, folders)
    from pipeline.reporting.report import report

    return report(values, folders)


def import_everything() -> None:
    """Import what the stages import, so that their processes need not."""
    import pipeline.conversion.convert
    import pipeline.evaluation.evaluate
    import pipeline.preparation.prepare
    import pipeline.reporting.report
    import pipeline.training.train  # noqa: F401


def contents(folder: Path) -> dict[str, str]:
    """A digest of each file below a folder, without what no two runs share; the cache is left out, being one."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(UNSHARED) and path.suffix != ".lock":
            digests[name] = hashlib.sha256(_comparable(path)).hexdigest()
    return digests


def _comparable(path: Path) -> bytes:
    if path.suffix == ".json":
        return json.dumps(_without_passing(json.loads(path.read_bytes())), sort_keys=True).encode()
    if path.name == "history.csv":
        rows = [line.split(",") for line in path.read_text().splitlines()]
        kept = [column for column, name in enumerate(rows[0]) if not any(word in name for word in PASSING)]
        return "\n".join(",".join(row[column] for column in kept) for row in rows).encode()
    return path.read_bytes()


def _without_passing(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_passing(v) for k, v in value.items() if not any(word in str(k) for word in PASSING)}
    return [_without_passing(item) for item in value] if isinstance(value, list) else value
