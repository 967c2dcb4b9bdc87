"""The stage `train`: token shards to a trained decoder, on one device or many."""

import json
import logging
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
from lightning.pytorch.loggers.logger import DummyLogger

from lightning_modules.callbacks.preemption import coming_back
from lightning_modules.configuration import TrainerConfig
from lightning_modules.data_module import SpeechTokens
from lightning_modules.language_model import LanguageModel
from lightning_modules.mixture import MixedWindows
from lightning_modules.packing import PackedDocuments
from lightning_modules.parallel.configuration import ParallelConfig, mesh_sizes
from lightning_modules.parallel.slurm import allotted_tasks
from lightning_modules.trainer import build_trainer, n_ranks, n_readers
from pipeline.configuration.command_line import preparing_command
from pipeline.configuration.composed import REPOSITORY, Folders, cache_folder, is_multirun
from pipeline.configuration.settings import read_settings
from pipeline.configuration.strategy import read_strategy
from pipeline.planning.admission import memory_of_a_rank, refuse_what_cannot_fit
from pipeline.planning.composed import read_training
from pipeline.planning.settings import Layout
from pipeline.plumbing.files import read_json, sweep
from pipeline.plumbing.lock import exclusive, in_turn
from pipeline.plumbing.rank import Node
from pipeline.plumbing.stage_runs import training_run
from pipeline.preparation.prepare import prepare_combination
from pipeline.provenance.prepared_data import prepared_settings, require_prepared
from pipeline.provenance.remote_data import LocalCopy, local_copy
from pipeline.provenance.training import identify_training
from pipeline.sweeping.pruning import pruning
from pipeline.tracking.config import TrackingConfig, anchored
from pipeline.tracking.history import HistoryCheckpoint, HistoryLogger
from pipeline.tracking.run import TrackedRun
from pipeline.training.abandonment import EndWithFolder
from pipeline.training.configuration import FeedConfig
from pipeline.training.feed import Feed, feed_recipe, open_feed
from pipeline.training.identity import training_identity
from pipeline.training.interrupted import LOCK, RESUME
from pipeline.training.model import begin_with, build_model
from pipeline.training.outputs import leave_outputs, say_result
from pipeline.training.ranks import Ranks, require_alike
from pipeline.training.resume_folder import ResumeFolder, ResumePoint

log = logging.getLogger(__name__)


def train(values: Mapping[str, Any], folders: Folders) -> float:
    """Train, and return the best validation loss, which sweeps minimise; the first rank alone writes and returns it.

    Args:
        values: the composed configuration.
        folders: where to write.
    """
    outputs, seed, usual, paths = folders.outputs, values["seed"], find_data(values), values["paths"]
    prepared = usual.folder
    values = {**values, "paths": {**paths, "prepared": str(prepared)}}
    feed_config = read_settings(FeedConfig, values["feed"], "feed")
    feed = open_feed(prepared, feed_config, cache_folder(paths), paths["cache_gb"])
    trainer_config = read_settings(TrainerConfig, values["trainer"], "trainer")
    strategy = read_strategy(values["strategy"])
    world_size, readers = (count(strategy, trainer_config.accelerator) for count in (n_ranks, n_readers))
    trainer_config = replace(trainer_config, accumulate_grad_batches=trainer_config.n_accumulated(readers))
    portions = {"accumulate_grad_batches": trainer_config.accumulate_grad_batches}
    settled = {**values, "trainer": {**values["trainer"], **portions}}
    check_memory(settled, prepared, strategy, trainer_config.accelerator)
    L.seed_everything(seed, verbose=False)
    model = build_model(values, feed.vocabulary.size, trainer_config, strategy)
    determinants = training_identity(settled, feed.content, readers)
    identity = identify_training(feed.usual, determinants, trainer_config.sequence_length)
    model.identity, model.validation_corpora = identity.inside(), feed.names
    ranks, resume = Ranks(), ResumeFolder(anchored(outputs, REPOSITORY) / RESUME, determinants, run_name(values))
    data = SpeechTokens(
        feed.train,
        feed.validation,
        trainer_config.sequence_length,
        lookahead=1 + model.decoder.config.num_nextn_predict_layers,
        batch_size=trainer_config.batch_size,
        n_batches=trainer_config.n_batches,
        seed=seed,
    )
    if ranks.is_first:
        say_mixture(feed)
        if not trainer_config.attend_across_documents:
            say_reach(data.train_windows)
        say_idle_tasks(world_size)
    trainer = build_trainer(
        trainer_config,
        strategy,
        values["precision"]["kind"],
        DummyLogger(),
        resume.path,
        [HistoryCheckpoint(), EndWithFolder(outputs.absolute()), *pruning(outputs)],
    )
    with coming_back(), ExitStack() as held:
        point = settle_point(resume, outputs, ranks, held)
        if point is None and trainer_config.start_from is not None:
            begin_with(model, Path(trainer_config.start_from))
        with (
            training_run(values, outputs, run_name(values), point.run_id if point else None) as run,
            node_metrics(ranks, run, values["tracking"]),
        ):
            if ranks.is_first:
                begin(resume, point, run, trainer, outputs)
            run.log_parameters(dict(values) | {"n_parameters": sum(p.numel() for p in model.parameters())})
            log_data(run, prepared, values["data"]["kind"], feed)
            run.set_tags(identity.tags())
            fit(trainer, model, data, point.checkpoint if point else None)
            feed.verify()
            if not ranks.is_first:
                return math.nan
            best = leave_outputs(values, outputs, identity, resume, run, trainer)
            resume.remove()
            say_result(outputs, best, feed.vocabulary, run)
            return best


def node_metrics(ranks: Ranks, run: TrackedRun, tracking: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Have the other machines of the training watched, if there are any and system metrics are recorded."""
    config, node = read_settings(TrackingConfig, tracking, "tracking"), Node.of_this_process()
    if config.kind == "none" or not config.system_metrics or node.n_nodes == 1:
        return nullcontext()
    # MLflow, whose monitors it takes, is loaded only when it is used.
    from pipeline.tracking.node_metrics import other_nodes_metrics

    return other_nodes_metrics(ranks.store, node, ranks.rank, run)


def say_mixture(feed: Feed) -> None:
    """Say what corpora have in common, and which documents are not read to their end."""
    for duplicates in feed.describe_duplicates():
        log.warning("%s", duplicates)
    if (capped := feed.describe_capped()) is not None:
        log.info("%s", capped)


def say_reach(windows: PackedDocuments | MixedWindows) -> None:
    """Say where windows and documents do not fit each other."""
    for name, packed in windows.corpora.items() if isinstance(windows, MixedWindows) else [("", windows)]:
        prefix = f"{name}: " if name else ""
        if (cuts := packed.describe_cuts()) is not None:
            log.info("%s%s", prefix, cuts)
        if (shortness := packed.describe_shortness()) is not None:
            log.warning("%s%s", prefix, shortness)


def say_idle_tasks(world_size: int) -> None:
    """Say where SLURM holds more tasks than train."""
    if allotted_tasks() > world_size:
        log.warning(
            "SLURM allotted %d tasks, and this training uses %d: `srun`, in front of the command, starts it on all.",
            allotted_tasks(),
            world_size,
        )


def find_data(values: Mapping[str, Any]) -> LocalCopy:
    """The prepared data that the configuration asks for; a job of a multirun prepares them where there are none.

    Raises:
        OSError, ValueError: there are none, or others; the message names the command that prepares them.
    """
    paths, cache = values["paths"], cache_folder(values["paths"])
    usual = local_copy(paths["prepared"], cache, paths["cache_gb"])
    if is_multirun():
        return replace(usual, folder=prepare_combination(values, usual.folder, cache))
    require_prepared(usual.folder, prepared_settings(values), preparing_command())
    return usual


def check_memory(values: Mapping[str, Any], prepared: Path, strategy: ParallelConfig | None, accelerator: str) -> None:
    """Refuse a training that cannot fit the memory of its ranks, before any is asked for.

    Raises:
        ValueError: naming what needs how much, and the remedies.
    """
    world_size = n_ranks(strategy, accelerator)
    ranks_here = world_size // (strategy.nodes if strategy else 1)
    layout = Layout.of_mesh(mesh_sizes(strategy or ParallelConfig(), world_size), ranks_here)
    refuse_what_cannot_fit(read_training(values, prepared), layout, memory_of_a_rank(accelerator, ranks_here))


def settle_point(resume: ResumeFolder, outputs: Path, ranks: Ranks, held: ExitStack) -> ResumePoint | None:
    """Keep other trainings from `outputs` until `held` is left, find where to go on, if anywhere, and tell all ranks.

    The first rank does so; what it is refused, the others are told. It refuses ranks that are configured otherwise. The
    same training in other outputs, as of two queued experiments that differ in their evaluation, is waited for.
    """

    def decide(claims: Mapping[int, str]) -> str:
        for rank, claim in claims.items():
            require_alike(resume.identity, json.loads(claim), rank)
        held.enter_context(exclusive(outputs / RESUME / LOCK, f"Training {resume.name}", outputs))
        held.enter_context(in_turn(resume.lock, f"Training {resume.name}", resume.path))
        point = resume.find()
        return json.dumps(point and [point.step, str(point.checkpoint), point.run_id])

    settled = json.loads(ranks.settle(decide, json.dumps(resume.identity)))
    return ResumePoint(settled[0], Path(settled[1]), settled[2]) if settled else None


def begin(resume: ResumeFolder, point: ResumePoint | None, run: TrackedRun, trainer: L.Trainer, outputs: Path) -> None:
    """Write for the first time, now that everything has been checked, and record the course of training."""
    sweep(outputs)
    resume.begin(point)
    trainer.logger = HistoryLogger(resume.history, run)
    if point is not None:
        log.info("Going on with the interrupted training at step %d of %d.", point.step, trainer.max_steps)


def fit(trainer: L.Trainer, model: LanguageModel, data: SpeechTokens, last: Path | None) -> None:
    """Train to the end, from the last checkpoint of an interrupted training if there is one.

    Raises:
        KeyboardInterrupt: Ctrl-C, which Lightning turns into an exit that says nothing.
    """
    try:
        trainer.fit(model, data, ckpt_path=last, weights_only=True)
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise end.__context__ from None
        raise


def log_data(run: TrackedRun, prepared: Path, kind: str, feed: Feed) -> None:
    """Note which data the run trains on."""
    for corpus in feed.corpora:
        card = read_json(corpus.copy.folder / "data_card.json")
        name = corpus.name if feed.weights else kind
        run.log_dataset(name, corpus.identity.digest, corpus.location, profile=json.dumps(card["splits"]))
    run.log_artifact(prepared / "data_card.md")


def run_name(values: Mapping[str, Any]) -> str:
    """What tells one training from another in a list: size, codec, data."""
    model, codec = values["model"], values["codec"]
    size = f"{model['num_hidden_layers']}x{model['hidden_size']}"
    books = f" {codec.get('n_codebooks', 1)}x{codec['codebook_size']}" if "codebook_size" in codec else ""
    return f"{size} · {codec['kind']}{books} · {feed_recipe(values)}"
