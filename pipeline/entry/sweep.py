"""A sweep under way: its jobs are listed, those that have ended well are left alone, and the others run."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from pipeline.configuration.composed import REPOSITORY, plain
from pipeline.configuration.multirun import SHARED
from pipeline.configuration.settings import read_settings
from pipeline.entry.sweep_jobs import written_values
from pipeline.entry.sweep_request import (
    TRAINING,
    combinations,
    of_seeds,
    refuse_places,
    require_seeds_apart,
    space_of,
)
from pipeline.plumbing.files import atomic_write, read_yaml, write_json
from pipeline.plumbing.lock import exclusive
from pipeline.plumbing.redaction import redacted
from pipeline.sweeping.configuration import OPTUNA, SweepConfig
from pipeline.sweeping.job import CONFIGURATION, JOB, SEED, key_of, read_job, without_seed
from pipeline.sweeping.objective import PRUNED, figure
from pipeline.sweeping.record import SweepRecord, read_record
from pipeline.sweeping.search import Search
from pipeline.tracking.config import TrackingConfig
from pipeline.tracking.sweep import close_runs_left_behind

log = logging.getLogger(__name__)

LOCK = ".sweep.lock"
# Settings of a job that its result does not depend on.
INDIFFERENT = ("tracking", "sweep")


def run_sweep(
    context: HydraContext, config: DictConfig, launcher: Launcher, arguments: Sequence[str]
) -> Sequence[JobReturn]:
    """Run the jobs that a command line asks for and that have not ended well before.

    Args:
        context: Hydra's.
        config: the configuration without the values that jobs differ in.
        launcher: runs jobs.
        arguments: the overrides as they were typed.
    """
    values = OmegaConf.to_container(config.sweep, resolve=True)
    assert isinstance(values, dict)
    sweep = read_settings(SweepConfig, {str(key): value for key, value in values.items()}, "sweep")
    folder, stage = Path(config.hydra.sweep.dir), str(config.hydra.job.name)
    parsed = OverridesParser.create(config_loader=context.config_loader).parse_overrides(list(arguments))
    require_seeds_apart(parsed, sweep.seeds, stage)
    refuse_places(parsed, stage)
    with exclusive(folder / LOCK, "A sweep", folder, "hydra.sweep.dir=…"):
        with atomic_write(folder / "multirun.yaml") as path:
            path.write_text(redacted(OmegaConf.to_yaml(config)), encoding="utf-8")
        jobs = Jobs(context, config, folder, sweep)
        jobs.share(parsed)
        if sweep.search == OPTUNA:
            if sweep.at_once == 1 and (several := runs_at_once(config.hydra.launcher)):
                log.warning("Trials run one by one, and the launcher could run %s: set sweep.at_once.", several)
            return search(parsed, int(config.seed), sweep, jobs, launcher)
        wanted = [job for one in combinations(parsed) for job in of_seeds(one, int(config.seed), sweep.seeds)]
        missing = jobs.missing(jobs.numbered(wanted))
        jobs.say_which(missing, len(wanted))
        return jobs.launch(launcher, missing)


def search(
    parsed: Sequence[Override], seed: int, sweep: SweepConfig, jobs: "Jobs", launcher: Launcher
) -> list[JobReturn]:
    """Run trials until there are as many as asked for; a failed one ends nothing.

    The first seed decides whether a trial is stopped; the others are trained only if it is not.
    """
    fixed, results = combinations([o for o in parsed if not o.is_sweep_override()])[0], list[JobReturn]()
    trials = Search(jobs.folder, sweep, space_of(parsed))
    while trials.n_left:
        batch = trials.next_batch()
        asked = [of_seeds([*fixed, *trials.overrides(trial)], seed, sweep.seeds) for trial in batch]
        folders = [jobs.folder_of(first) for first, *_ in asked]
        for trial, folder in zip(batch, folders, strict=True):
            trials.enter(trial, folder)
        results += jobs.launch(launcher, jobs.missing(jobs.numbered([first for first, *_ in asked])))
        stopped = [(folder / PRUNED).exists() for folder in folders]
        others = [job for seeds, over in zip(asked, stopped, strict=True) if not over for job in seeds[1:]]
        results += jobs.launch(launcher, jobs.missing(jobs.numbered(others)))
        for trial, seeds, over in zip(batch, asked, stopped, strict=True):
            trials.tell(trial, jobs.mean(seeds), over)
    return results


def runs_at_once(launcher: DictConfig) -> str:
    """How many jobs a launcher runs at a time; empty where it is one."""
    n_jobs = launcher.get("n_jobs", launcher.get("array_parallelism", 1))
    return "" if n_jobs in (None, 1) else f"{n_jobs} at once" if n_jobs > 0 else "one on each core"


class Jobs:
    """The jobs of a sweep, each with a number that it keeps.

    Args:
        context: Hydra's.
        config: the configuration without the values that jobs differ in.
        folder: of the sweep.
        sweep: what it is asked for.
    """

    def __init__(self, context: HydraContext, config: DictConfig, folder: Path, sweep: SweepConfig) -> None:
        self._context, self._config, self.folder, self._sweep = context, config, folder, sweep
        self._stage = str(config.hydra.job.name)
        known = read_record(folder)
        self._record = SweepRecord(self._stage, sweep.objective, sweep.goal, known.jobs if known else [])

    def share(self, parsed: Sequence[Override]) -> None:
        """Note which settings tell no job from another."""
        swept = {override.get_key_element() for override in parsed if override.is_sweep_override()} | {SEED}
        keys = [override.get_key_element() for override in parsed if override.get_key_element() not in swept]
        write_json(self.folder / SHARED, [key for key in keys if not self._differs(key)])

    def numbered(self, wanted: Sequence[Sequence[str]]) -> dict[int, Sequence[str]]:
        """Jobs by the numbers that they keep."""
        jobs = {self._record.number(self._lasting(overrides)): overrides for overrides in wanted}
        self._record.write(self.folder)
        return jobs

    def folder_of(self, overrides: Sequence[str]) -> Path:
        """Where a job writes."""
        (number,) = self.numbered([overrides])
        return self.folder / str(number)

    def missing(self, jobs: Mapping[int, Sequence[str]]) -> dict[int, Sequence[str]]:
        """The jobs that have to run."""
        return {number: overrides for number, overrides in jobs.items() if not self._is_done(number, overrides)}

    def say_which(self, missing: Mapping[int, Sequence[str]], n_jobs: int) -> None:
        """Say which jobs run, unless all do."""
        if len(missing) < n_jobs:
            log.info(
                "%d of %d jobs are in %s already; %s. Remove a job's folder to run it anew.",
                n_jobs - len(missing),
                n_jobs,
                self.folder,
                f"running {', '.join(map(str, missing))}" if missing else "none is left to run",
            )

    def mean(self, jobs: Sequence[Sequence[str]]) -> float | None:
        """The mean objective of jobs; None where one has none."""
        ended = [read_job(self.folder_of(job)) for job in jobs]
        objectives = [job.objective for job in ended if job and job.objective is not None]
        return fmean(objectives) if len(objectives) == len(ended) and math.isfinite(fmean(objectives)) else None

    def launch(self, launcher: Launcher, jobs: Mapping[int, Sequence[str]]) -> Sequence[JobReturn]:
        """Run jobs, each in the folder of its number."""
        if not jobs:
            return []
        for number in jobs:
            for name in (JOB, PRUNED):
                (self.folder / str(number) / name).unlink(missing_ok=True)
        placed = [[*overrides, f"hydra.sweep.subdir='{number}'"] for number, overrides in jobs.items()]
        try:
            return launcher.launch(placed, initial_job_idx=min(jobs))
        except KeyboardInterrupt:
            # A job of this process has closed its own run.
            if runs_at_once(self._config.hydra.launcher):
                tracking = read_settings(TrackingConfig, plain(self._config.tracking), "tracking")
                close_runs_left_behind(tracking, REPOSITORY, self.folder)
            raise

    def _is_done(self, number: int, overrides: Sequence[str]) -> bool:
        """Whether a training has ended well with these very settings; others depend on files that may have changed.

        Composing what the job would run on finds mistakes before the first one runs.
        """
        composed = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        folder = self.folder / str(number)
        job = read_job(folder)
        if self._stage != TRAINING or job is None or job.failure or not (folder / CONFIGURATION).exists():
            return False
        # As YAML brings values back.
        asked = yaml.safe_load(yaml.safe_dump(written_values(composed)))
        if _decisive(asked) != _decisive(read_yaml(folder / CONFIGURATION)):
            return False
        objective = figure(folder, self._sweep.objective)
        if objective is not None and objective != job.objective:
            replace(job, objective=objective).write()
        return objective is not None

    def _lasting(self, overrides: Sequence[str]) -> list[str]:
        """What tells a job from others, without secrets: the seed of a training too where it is the usual one."""
        lasting = [redacted(o) for o in overrides if key_of(o).partition(".")[0].partition("/")[0] not in INDIFFERENT]
        if self._stage != TRAINING or len(without_seed(lasting)) < len(lasting):
            return lasting
        return [*lasting, f"{SEED}={self._config.seed}"]

    def _differs(self, key: str) -> bool:
        """Whether jobs that were asked for earlier have other values of a setting."""
        return len({tuple(o for o in job if key_of(o) == key_of(key)) for job in self._record.jobs}) > 1


def _decisive(values: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if key not in INDIFFERENT}
