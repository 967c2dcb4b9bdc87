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
from lightning_modules.trainer import build_trainer
from pipeline.configuration.command_line import preparing_command
from pipeline.configuration.composed import REPOSITORY, Folders, cache_folder, is_multirun
from pipeline.configuration.settings import read_settings
from pipeline.plumbing.files import read_json, sweep
from pipeline.plumbing.lock import exclusive, in_turn
from pipeline.plumbing.rank import Node
from pipeline.preparation.prepare import prepare_combination
from pipeline.provenance.prepared_data import prepared_settings, require_prepared
from pipeline.provenance.remote_data import LocalCopy, local_copy
from pipeline.provenance.training import identify_training
from pipeline.sweeping.pruning import pruning
from pipeline.tracking.config import TrackingConfig, anchored
from pipeline.tracking.history import HistoryCheckpoint, HistoryLogger
from pipeline.tracking.run import TrackedRun
from pipeline.tracking.stage_runs import training_run
from pipeline.training.abandonment import EndWithFolder
from pipeline.training.configuration import FeedConfig
from pipeline.training.division import check_memory, divide
from pipeline.training.feed import Feed, feed_recipe, open_feed
from pipeline.training.identity import training_identity
from pipeline.training.interrupted import LOCK, RESUME
from pipeline.training.model import begin_with, build_model
from pipeline.training.outputs import leave_outputs, say_result
from pipeline.training.ranks import Ranks, require_alike
from pipeline.training.remarks import say_what_comes
from pipeline.training.resume_folder import ResumeFolder, ResumePoint

log = logging.getLogger(__name__)


def train(values: Mapping[str, Any], folders: Folders) -> float:
    """Train, and return the best validation loss, which sweeps minimise; the first rank alone writes and returns it.

    Args:
        values: the composed configuration.
        folders: where to write.
    """
    # Behind a URL they are a copy, which nobody removes as long as this name is there.
    prepared = find_data(values)
    values = {**values, "paths": {**values["paths"], "prepared": str(prepared.folder)}}
    feed = configured_feed(values)
    division = divide(values)
    settled = division.settled(values)
    check_memory(settled, prepared.folder, division)
    L.seed_everything(values["seed"], verbose=False)
    model = build_model(values, feed.vocabulary.size, division.trainer, division.strategy)
    determinants = training_identity(settled, feed.content, division.n_readers)
    identity = identify_training(feed.usual, determinants, division.trainer.sequence_length)
    model.identity, model.validation_corpora = identity.inside(), feed.names
    outputs, name, ranks = folders.outputs, run_name(values), Ranks()
    resume = ResumeFolder(anchored(outputs, REPOSITORY) / RESUME, determinants, name)
    data = windows_of(feed, division.trainer, model.decoder.config.num_nextn_predict_layers, values["seed"])
    if ranks.is_first:
        say_what_comes(feed, data, division)
    trainer = build_trainer(
        division.trainer,
        division.strategy,
        values["precision"]["kind"],
        DummyLogger(),
        resume.path,
        [HistoryCheckpoint(), EndWithFolder(outputs.absolute()), *pruning(outputs)],
    )
    with coming_back(), ExitStack() as held:
        point = settle_point(resume, outputs, ranks, held)
        if point is None and division.trainer.start_from is not None:
            begin_with(model, Path(division.trainer.start_from))
        with (
            training_run(values, outputs, name, point.run_id if point else None) as run,
            node_metrics(ranks, run, values["tracking"]),
        ):
            if ranks.is_first:
                begin(resume, point, run, trainer, outputs)
            run.log_parameters(dict(values) | {"n_parameters": sum(p.numel() for p in model.parameters())})
            log_data(run, prepared.folder, values["data"]["kind"], feed)
            run.set_tags(identity.tags())
            fit(trainer, model, data, point.checkpoint if point else None)
            feed.verify()
            if not ranks.is_first:
                return math.nan
            best = leave_outputs(values, outputs, identity, resume, run, trainer)
            resume.remove()
            say_result(outputs, best, feed.vocabulary, run)
            return best


def configured_feed(values: Mapping[str, Any]) -> Feed:
    """What is read, of the data in `paths.prepared` or of the mixture; `open_feed` says what it raises."""
    paths, config = values["paths"], read_settings(FeedConfig, values["feed"], "feed")
    return open_feed(Path(paths["prepared"]), config, cache_folder(paths), paths["cache_gb"])


def windows_of(feed: Feed, config: TrainerConfig, n_mtp_modules: int, seed: int) -> SpeechTokens:
    """The feed's documents in windows, each with as many tokens behind it as the modules of MTP look ahead."""
    return SpeechTokens(
        feed.train,
        feed.validation,
        config.sequence_length,
        lookahead=1 + n_mtp_modules,
        batch_size=config.batch_size,
        n_batches=config.n_batches,
        seed=seed,
    )


def node_metrics(ranks: Ranks, run: TrackedRun, tracking: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Have the other machines of the training watched, if there are any and system metrics are recorded."""
    config, node = read_settings(TrackingConfig, tracking, "tracking"), Node.of_this_process()
    if config.kind == "none" or not config.system_metrics or node.n_nodes == 1:
        return nullcontext()
    # MLflow, whose monitors it takes, is loaded only when it is used.
    from pipeline.tracking.node_metrics import other_nodes_metrics

    return other_nodes_metrics(ranks.store, node, ranks.rank, run)


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
