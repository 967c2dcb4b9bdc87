"""The stage `train`: token shards to a trained decoder, on one device or many."""

import json
import logging
import math
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import torch
from lightning.pytorch.loggers.logger import DummyLogger

from lightning_modules.callbacks.best import BestCheckpoint
from lightning_modules.configuration import OptimizerConfig, TrainerConfig
from lightning_modules.data_module import SpeechTokens
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.packing import PackedDocuments
from lightning_modules.parallel.checkpoint_folder import remove
from lightning_modules.parallel.checkpoint_loading import load_weights, read_description
from lightning_modules.parallel.configuration import ParallelConfig, mesh_sizes
from lightning_modules.schedule import ScheduleConfig
from lightning_modules.trainer import build_trainer, compiles, model_device, n_ranks
from pipeline.configuration.command_line import next_command, preparing_command, repeating_command
from pipeline.configuration.composed import REPOSITORY, Folders, cache_folder, is_multirun
from pipeline.configuration.model import read_model
from pipeline.configuration.settings import read_settings
from pipeline.configuration.strategy import read_strategy
from pipeline.planning.admission import memory_of_a_rank, refuse_what_cannot_fit
from pipeline.planning.composed import read_training
from pipeline.planning.settings import Layout
from pipeline.plumbing.files import atomic_folder, atomic_write, link_or_copy, read_json, sweep, write_metrics
from pipeline.plumbing.lock import exclusive, in_turn
from pipeline.plumbing.rank import Node
from pipeline.plumbing.stage_runs import training_run
from pipeline.preparation.prepare import prepare_combination
from pipeline.provenance.prepared_data import (
    PreparedIdentity,
    prepared_settings,
    read_prepared_identity,
    require_prepared,
)
from pipeline.provenance.training import CHECKPOINT, begin_outputs, finish_outputs, identify_training
from pipeline.sweeping.configuration import OF_TRAINING
from pipeline.sweeping.objective import figure
from pipeline.sweeping.pruning import pruning
from pipeline.tokens.shards import TokenDataset
from pipeline.tracking.config import TrackingConfig, anchored
from pipeline.tracking.history import HistoryCheckpoint, HistoryLogger, last_values, write_history_tables
from pipeline.tracking.model_entry import CHECKPOINT as MODEL_OF_STEP
from pipeline.tracking.model_entry import ModelEntry
from pipeline.tracking.notes import TRAINING
from pipeline.tracking.run import TrackedRun
from pipeline.training.abandonment import EndWithFolder
from pipeline.training.identity import training_identity
from pipeline.training.interrupted import LOCK, RESUME
from pipeline.training.ranks import Ranks, require_alike
from pipeline.training.resume_folder import ResumeFolder, ResumePoint

log = logging.getLogger(__name__)

# What experiments are compared by.
HEADLINE = ("train/loss", "val/loss")
# Steps that the store lists by their validation loss.
RANKED = 5


def train(values: Mapping[str, Any], folders: Folders) -> float:
    """Train, and return the best validation loss, which sweeps minimise; the first rank alone writes and returns it.

    Args:
        values: the composed configuration.
        folders: where to write.
    """
    outputs, seed, prepared = folders.outputs, values["seed"], find_data(values)
    values = {**values, "paths": {**values["paths"], "prepared": str(prepared)}}
    train_tokens, validation_tokens = (TokenDataset.open(prepared / split) for split in ("train", "validation"))
    trainer_config = read_settings(TrainerConfig, values["trainer"], "trainer")
    strategy = read_strategy(values["strategy"])
    check_memory(values, prepared, strategy, trainer_config.accelerator)
    L.seed_everything(seed, verbose=False)
    model = build_model(values, train_tokens.vocabulary.size, trainer_config, strategy)
    data_identity = read_prepared_identity(prepared)
    determinants = training_identity(values, data_identity.digest, n_ranks(strategy, trainer_config.accelerator))
    identity = identify_training(data_identity, determinants, trainer_config.sequence_length)
    model.identity = identity.inside()
    ranks, resume = Ranks(), ResumeFolder(anchored(outputs, REPOSITORY) / RESUME, determinants, run_name(values))
    data = SpeechTokens(
        train_tokens,
        validation_tokens,
        trainer_config.sequence_length,
        lookahead=1 + model.decoder.config.num_nextn_predict_layers,
        batch_size=trainer_config.batch_size,
        n_batches=trainer_config.n_batches,
        seed=seed,
    )
    if ranks.is_first and not trainer_config.attend_across_documents:
        say_reach(data.train_windows)
    trainer = build_trainer(
        trainer_config,
        strategy,
        values["precision"]["kind"],
        DummyLogger(),
        resume.path,
        [HistoryCheckpoint(), EndWithFolder(outputs.absolute()), *pruning(outputs)],
    )
    with ExitStack() as held:
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
            log_data(run, prepared, values, data_identity)
            run.set_tags(identity.tags())
            fit(trainer, model, data, point.checkpoint if point else None)
            for tokens in (train_tokens, validation_tokens):
                tokens.verify()
            if not ranks.is_first:
                return math.nan
            begin_outputs(outputs / "train")
            best = write_outputs(outputs / "train", resume, run, trainer)
            log_objective(run, outputs, values["sweep"]["objective"])
            log_checkpoints(
                run,
                trainer,
                outputs / "train" / CHECKPOINT,
                (f"{values['data']['kind']} validation", data_identity.digest),
            )
            finish_outputs(outputs / "train", values, identity, run)
            run.describe(TRAINING, training_note(best, best_step(trainer), trainer.max_steps))
            resume.remove()
            say_result(outputs, best, train_tokens, run)
            return best


def node_metrics(ranks: Ranks, run: TrackedRun, tracking: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Have the other machines of the training watched, if there are any and system metrics are recorded."""
    config, node = read_settings(TrackingConfig, tracking, "tracking"), Node.of_this_process()
    if config.kind == "none" or not config.system_metrics or node.n_nodes == 1:
        return nullcontext()
    # MLflow, whose monitors it takes, is loaded only when it is used.
    from pipeline.tracking.node_metrics import other_nodes_metrics

    return other_nodes_metrics(ranks.store, node, ranks.rank, run)


def say_result(outputs: Path, loss: float, tokens: TokenDataset, run: TrackedRun) -> None:
    """Say how the training ended, where it left what, and how to go on."""
    guessing = math.log(tokens.vocabulary.codebook_size)
    log.info(
        "Best validation loss: %.3f nats a token, %s guessing (%.3f). Checkpoint: %s. %sNext: %s",
        loss,
        "below" if loss < guessing else "no better than",
        guessing,
        outputs / "train" / CHECKPOINT,
        f"Run: {run.run_id}. " if run.run_id else "",
        next_command("convert_checkpoint", outputs),
    )


def training_note(loss: float, step: int, n_steps: int) -> str:
    """What the training adds to the description of its run: how it ended, and the command that repeats it."""
    again = repeating_command()
    return f"Best validation loss **{loss:.3f}** nats a token, at step {step} of {n_steps}.\n\n    {again}"


def say_reach(windows: PackedDocuments) -> None:
    """Say where windows and documents do not fit each other."""
    if (cuts := windows.describe_cuts()) is not None:
        log.info("%s", cuts)
    if (shortness := windows.describe_shortness()) is not None:
        log.warning("%s", shortness)


def find_data(values: Mapping[str, Any]) -> Path:
    """The prepared data that the configuration asks for; a job of a multirun prepares them where there are none.

    Raises:
        FileNotFoundError, ValueError: there are none, or others; the message names the command that prepares them.
    """
    usual, cache = Path(values["paths"]["prepared"]), cache_folder(values["paths"])
    if is_multirun():
        return prepare_combination(values, usual, cache)
    require_prepared(usual, prepared_settings(values), preparing_command())
    return usual


def check_memory(values: Mapping[str, Any], prepared: Path, strategy: ParallelConfig | None, accelerator: str) -> None:
    """Refuse a training that cannot fit the memory of its ranks, before any is asked for.

    Raises:
        ValueError: naming what needs how much, and the remedies.
    """
    world_size = n_ranks(strategy, accelerator)
    ranks_here = world_size // (strategy.nodes if strategy else 1)
    layout = Layout(*mesh_sizes(strategy or ParallelConfig(), world_size), ranks_here)
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


def build_model(
    values: Mapping[str, Any], vocabulary_size: int, trainer: TrainerConfig, strategy: ParallelConfig | None
) -> LanguageModel:
    """The LightningModule that the configuration describes, for tokens of this vocabulary.

    Raises:
        ValueError: when the configured vocabulary is too small for the tokens.
    """
    decoder, objective = read_model(values["model"], vocabulary_size)
    with torch.device(model_device(strategy)):
        return LanguageModel(
            decoder,
            objective,
            read_settings(OptimizerConfig, values["optimizer"], "optimizer"),
            read_settings(ScheduleConfig, values["schedule"], "schedule"),
            trainer.max_steps,
            values["seed"],
            trainer.attend_across_documents,
            trainer.recompute_activations,
            compiles(trainer, decoder, values["precision"]["kind"]),
            trainer.cuda_graph,
        )


def begin_with(model: LanguageModel, path: Path) -> None:
    """Begin with the weights of an earlier training, as the phases of context extension do.

    A model without memory of its own yet loads them when it is sharded.

    Raises:
        FileNotFoundError: when there is no such checkpoint.
        ValueError: when it holds another architecture; only how positions are scaled may differ.
    """
    trained = DecoderConfig(**read_description(path)["hyper_parameters"]["decoder"])
    config = model.decoder.config
    extended = replace(
        trained, rope_scaling=config.rope_scaling, max_position_embeddings=config.max_position_embeddings
    )
    if extended != config:
        differing = [f.name for f in fields(config) if getattr(extended, f.name) != getattr(config, f.name)]
        raise ValueError(
            f"trainer.start_from: {path} holds a model with another {', '.join(differing)}; "
            "set model.* as it was trained."
        )
    if any(parameter.is_meta for parameter in model.parameters()):
        model.load_first_weights = partial(load_weights, path)
    else:
        load_weights(path, model.decoder)


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


def write_outputs(folder: Path, resume: ResumeFolder, run: TrackedRun, trainer: L.Trainer) -> float:
    """Write the stage's files, and return the best validation loss."""
    assert isinstance(trainer.logger, HistoryLogger)
    rows = trainer.logger.rows
    losses = [row["val/loss"] for row in rows if "val/loss" in row]
    best = min(losses)
    metrics = last_values(rows) | {"val/loss": best, "val/loss_last": losses[-1]}
    tables = write_history_tables(rows, folder)
    copy_checkpoint(resume.best(best_step(trainer)), folder / "checkpoint.ckpt")
    write_metrics(folder, metrics, HEADLINE)
    run.log_metrics({"val/loss_best": best})
    for table in tables:
        run.log_artifact(table)
    run.log_artifact(folder / "metrics.json")
    return best


def log_objective(run: TrackedRun, outputs: Path, name: str) -> None:
    """Log what a sweep compares its jobs by, unless that is measured later."""
    objective = figure(outputs, name) if name in OF_TRAINING else None
    if objective is not None:
        run.log_objective(objective)


def log_checkpoints(run: TrackedRun, trainer: L.Trainer, kept: Path, dataset: tuple[str, str]) -> None:
    """Rank the validated steps by their loss, as models of the run; only the best one's checkpoint is kept."""
    assert isinstance(trainer.logger, HistoryLogger)
    # Rows count steps from 0.
    losses = {int(row["step"]) + 1: row["val/loss"] for row in trainer.logger.rows if "val/loss" in row}
    best = best_step(trainer)
    for rank, step in enumerate(sorted(losses, key=lambda step: (step != best, losses[step]))[:RANKED], start=1):
        entry = ModelEntry(
            MODEL_OF_STEP,
            f"step {step}",
            f"{run.run_id} {step}",
            kept if step == best else None,
            step=step,
            tags={"rank": str(rank)},
            metrics={"val/loss": losses[step]},
            dataset=dataset,
            home=anchored(kept, REPOSITORY),
        )
        run.log_model(entry)


def best_step(trainer: L.Trainer) -> int:
    """The optimizer steps behind the best checkpoint of a training that has ended."""
    (best,) = (callback for callback in trainer.callbacks if isinstance(callback, BestCheckpoint))  # type: ignore[attr-defined]
    assert best.step is not None, "every training is validated at its last step"
    return best.step


def copy_checkpoint(source: Path, target: Path) -> None:
    """Put a checkpoint, a file or a folder, in the place of whatever `target` was."""
    if source.is_dir() != target.is_dir():
        remove(target)
    if source.is_dir():
        with atomic_folder(target) as temporary:
            shutil.copytree(source, temporary, copy_function=link_or_copy, dirs_exist_ok=True)
    else:
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)


def log_data(run: TrackedRun, prepared: Path, values: Mapping[str, Any], identity: PreparedIdentity) -> None:
    """Note which data the run trains on."""
    card = read_json(prepared / "data_card.json")
    run.log_dataset(values["data"]["kind"], identity.digest, str(prepared), profile=json.dumps(card["splits"]))
    run.log_artifact(prepared / "data_card.md")


def run_name(values: Mapping[str, Any]) -> str:
    """What tells one training from another in a list: size, codec, data."""
    model, codec = values["model"], values["codec"]
    size = f"{model['num_hidden_layers']}x{model['hidden_size']}"
    books = f" {codec.get('n_codebooks', 1)}x{codec['codebook_size']}" if "codebook_size" in codec else ""
    return f"{size} · {codec['kind']}{books} · {values['data']['kind']}"
