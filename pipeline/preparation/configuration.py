"""The groups `data` and `preparation` of the configuration. Light: needs no torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.audio.configuration import ScreeningConfig, SplitConfig, UtteranceConfig
from pipeline.audio.corpora.configuration import corpus_settings
from pipeline.configuration.settings import check_known, check_seed, near_matches, read_settings

LOCAL, RAY, SLURM_ARRAY = "local", "ray", "slurm_array"
# In their order; those of SHARED can be done in parts, by whoever has time.
ALL, INSPECT, PLAN, ENCODE_LONG, ENCODE, FINISH = "all", "inspect", "plan", "encode_long", "encode", "finish"
STEPS = (ALL, INSPECT, PLAN, ENCODE_LONG, ENCODE, FINISH)
SHARED = (INSPECT, ENCODE_LONG, ENCODE)
EXECUTORS = ("slurm", "local", "debug")
PROCESSING = ("shard_utterances", "reference_utterances", "workers")


@dataclass(frozen=True)
class ProcessingConfig:
    """How the work is portioned."""

    LARGEST: ClassVar[Mapping[str, float]] = {
        "shard_utterances": 10**6, "reference_utterances": 10**6, "workers": 1024
    }  # fmt: skip

    shard_utterances: int
    reference_utterances: int
    workers: int | None

    def __post_init__(self) -> None:
        for name in PROCESSING:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"data.{name} is {value}; it must be at least 1.")


@dataclass(frozen=True)
class DataConfig:
    """A corpus, and what becomes of it.

    Attributes:
        kind: of the corpus.
        seed: of every random choice that data depend on.
        options: the kind's own.
        split: who goes where.
        utterances: how long documents are.
        screening: what cannot be used.
        processing: how the work is portioned.
    """

    kind: str
    seed: int
    options: Mapping[str, Any]
    split: SplitConfig
    utterances: UtteranceConfig
    screening: ScreeningConfig
    processing: ProcessingConfig


def read_data(data: Mapping[str, Any]) -> DataConfig:
    """The `data` group, read and checked; nothing is opened.

    Raises:
        ValueError: naming the key that cannot be, and the remedy.
    """
    if "kind" not in data:
        raise ValueError("data.kind is missing; choose one of the files under conf/data, as data=folder.")
    options = dict(data)
    kind, seed = options.pop("kind"), check_seed("data.seed", options.pop("seed", None))
    split = read_settings(SplitConfig, options.pop("split", {}), "data.split")
    utterances = read_settings(UtteranceConfig, options.pop("utterances", {}), "data.utterances")
    screening = read_settings(ScreeningConfig, options.pop("screening", {}), "data.screening")
    processing = read_settings(
        ProcessingConfig, {name: options.pop(name) for name in PROCESSING if name in options}, "data"
    )
    corpus_settings(kind, options)
    return DataConfig(kind, seed, options, split, utterances, screening, processing)


@dataclass(frozen=True)
class LocalConfig:
    """The processes of this machine, `data.workers` of them."""


@dataclass(frozen=True)
class RayConfig:
    """Tasks of a Ray cluster.

    Attributes:
        address: of the cluster; None takes the one of RAY_ADDRESS or of this machine, else starts one here.
        cpus: that a task takes.
        gpus: that a task takes.
        retries: how often a shard is tried again when its worker or node dies.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {"cpus": 1024, "gpus": 64, "retries": 1000}

    address: str | None
    cpus: float
    gpus: float
    retries: int

    def __post_init__(self) -> None:
        if self.cpus <= 0:
            raise ValueError(f"preparation.cpus is {self.cpus}; a task takes some.")
        for name in ("gpus", "retries"):
            if getattr(self, name) < 0:
                raise ValueError(f"preparation.{name} is {getattr(self, name)}; it must be at least 0.")


@dataclass(frozen=True)
class SlurmArrayConfig:
    """Tasks of SLURM arrays, submitted by submitit.

    Attributes:
        executor: `slurm`, or `local` or `debug` to try things out on this machine.
        tasks: of an array, at most.
        cpus_per_task: processes of each.
        mem_gb: memory of each, in GB.
        timeout_min: minutes that each may take; one that takes longer is queued again for what is left.
        partition: SLURM's; None leaves it to SLURM.
        parameters: others of sbatch's, as `account` and `qos`.
    """

    LARGEST: ClassVar[Mapping[str, float]] = {
        "tasks": 100_000, "cpus_per_task": 1024, "mem_gb": 100_000, "timeout_min": 525_600
    }  # fmt: skip

    executor: str
    tasks: int
    cpus_per_task: int
    mem_gb: float
    timeout_min: int
    partition: str | None
    parameters: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_known("preparation.executor", self.executor, EXECUTORS)
        for name in ("tasks", "cpus_per_task", "mem_gb", "timeout_min"):
            if getattr(self, name) <= 0:
                raise ValueError(f"preparation.{name} is {getattr(self, name)}; it must be above 0.")
        if not isinstance(self.parameters, Mapping):
            raise ValueError(
                f"preparation.parameters is {self.parameters!r}; give a mapping, as +preparation.parameters.qos=low."
            )


EngineConfig = LocalConfig | RayConfig | SlurmArrayConfig
ENGINES: Mapping[str, type[EngineConfig]] = {LOCAL: LocalConfig, RAY: RayConfig, SLURM_ARRAY: SlurmArrayConfig}


@dataclass(frozen=True)
class PreparationConfig:
    """Who prepares, and how much of it.

    Attributes:
        engine: the settings of what the work is spread by.
        step: `all`, or one of the steps to be done by hand.
        part: of the step's shards: the k-th of n parts, (k, n), k from 1 on; None does all that are missing.
    """

    engine: EngineConfig
    step: str
    part: tuple[int, int] | None


def read_preparation(preparation: Mapping[str, Any]) -> PreparationConfig:
    """The `preparation` group, read and checked.

    Raises:
        ValueError: naming the key that cannot be, and the remedy.
    """
    options = dict(preparation)
    kind, step, part = (options.pop(name, None) for name in ("kind", "step", "shard"))
    check_known("preparation.kind", kind, tuple(ENGINES))
    check_known("preparation.step", step, STEPS)
    engine = read_settings(ENGINES[kind], options, "preparation")
    if part is None:
        return PreparationConfig(engine, step, None)
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", str(part))
    if match is None or int(match[1]) > int(match[2]):
        raise ValueError(f"preparation.shard is {part!r}; give k/n, the k-th of n parts, as 1/16 or 16/16.")
    if step not in SHARED:
        raise ValueError(f"preparation.shard={part} needs a step that has parts; {near_matches('', SHARED)}")
    if kind != LOCAL:
        raise ValueError(f"preparation.shard={part} is done by this machine alone; leave preparation={kind} out.")
    return PreparationConfig(engine, step, (int(match[1]), int(match[2])))
