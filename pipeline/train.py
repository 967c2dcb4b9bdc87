"""Stage 2: token shards to a trained decoder.

python -m pipeline.train [model=tiny optimizer.lr=1e-3 …]
python -m pipeline.train -m model=tiny,small optimizer.lr=1e-3,3e-4
"""

import json
import logging
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import hydra
import lightning as L  # noqa: N812
import torch
from omegaconf import DictConfig

from lightning_modules.data_module import SpeechTokens
from lightning_modules.language_model import LanguageModel, OptimizerConfig
from lightning_modules.schedule import ScheduleConfig
from lightning_modules.trainer import TrainerConfig, build_trainer
from pipeline.checkpoints.training import read_training_checkpoint
from pipeline.configuration import outputs_folder, plain
from pipeline.files import atomic_write, read_json, write_json
from pipeline.model_settings import read_model
from pipeline.resume import ResumeFolder, fingerprint
from pipeline.settings import read_settings
from pipeline.stage_runs import training_run
from pipeline.tokens.shards import TokenDataset
from pipeline.tracking.history import HistoryLogger, last_values, read_history, write_history_table
from pipeline.tracking.run import TrackedRun

log = logging.getLogger(__name__)

# What decides the outcome of a training, beside the data.
DECISIVE_GROUPS = ("model", "optimizer", "schedule", "trainer", "precision", "strategy", "seed")


@hydra.main(version_base=None, config_path="../conf", config_name="config")
def main(config: DictConfig) -> float:
    """Train, and return the best validation loss, which sweeps minimise."""
    values = plain(config)
    prepared, outputs = Path(config.paths.prepared), outputs_folder(config)
    train_tokens, validation_tokens = (TokenDataset.open(prepared / split) for split in ("train", "validation"))
    trainer_config = read_settings(TrainerConfig, values["trainer"], "trainer")
    L.seed_everything(config.seed, verbose=False)
    model = build_model(values, train_tokens.vocabulary.size, trainer_config)
    if trainer_config.start_from is not None:
        load_weights(model, Path(trainer_config.start_from))
    data = SpeechTokens(
        train_tokens,
        validation_tokens,
        trainer_config.sequence_length,
        lookahead=1 + model.decoder.config.num_nextn_predict_layers,
        batch_size=trainer_config.batch_size,
        n_batches=trainer_config.n_batches,
        seed=config.seed,
    )
    identity = {name: values[name] for name in DECISIVE_GROUPS}
    identity["data"] = [read_json(prepared / split / "index.json") for split in ("train", "validation")]
    resume = ResumeFolder(outputs / "resume", identity)
    with training_run(values, outputs, run_name(values), resume.run_id) as run:
        resume.remember_run(run.run_id)
        run.log_parameters(values | {"n_parameters": sum(p.numel() for p in model.parameters())})
        log_data(run, prepared, values, train_tokens)
        fit(model, data, trainer_config, values["precision"]["kind"], resume, run)
        return write_outputs(outputs / "train", resume, run)


def build_model(values: Mapping[str, Any], vocabulary_size: int, trainer: TrainerConfig) -> LanguageModel:
    """The LightningModule that the configuration describes, for tokens of this vocabulary.

    Raises:
        ValueError: when the configured vocabulary is too small for the tokens.
    """
    decoder, objective = read_model(values["model"], vocabulary_size)
    return LanguageModel(
        decoder,
        objective,
        read_settings(OptimizerConfig, values["optimizer"], "optimizer"),
        read_settings(ScheduleConfig, values["schedule"], "schedule"),
        trainer.max_steps,
        trainer.attend_across_documents,
        trainer.recompute_activations,
    )


def load_weights(model: LanguageModel, path: Path) -> None:
    """Begin with the weights of an earlier training, as the phases of context extension do.

    Raises:
        ValueError: when the checkpoint holds another architecture; only how positions are scaled may differ.
    """
    trained, config = read_training_checkpoint(path), model.decoder.config
    extended = replace(
        trained.config, rope_scaling=config.rope_scaling, max_position_embeddings=config.max_position_embeddings
    )
    if extended != config:
        differing = [f.name for f in fields(config) if getattr(extended, f.name) != getattr(config, f.name)]
        raise ValueError(
            f"trainer.start_from: {path} holds a model with another {', '.join(differing)}; "
            "set model.* as it was trained."
        )
    model.decoder.load_state_dict(trained.weights)


def fit(
    model: LanguageModel,
    data: SpeechTokens,
    config: TrainerConfig,
    precision: str,
    resume: ResumeFolder,
    run: TrackedRun,
) -> None:
    """Train to the end, from the last checkpoint of an interrupted training if there is one."""
    first_step = 0
    if resume.last is not None:
        first_step = torch.load(resume.last, weights_only=True, mmap=True)["global_step"]
        log.info("Going on with the interrupted training at step %d of %d.", first_step, config.max_steps)
    trainer = build_trainer(config, precision, HistoryLogger(resume.history, run, first_step), resume.path)
    with warnings.catch_warnings():
        # The sampler begins at the right batch by itself, which Lightning cannot know; and workers would only cost
        # time: a window is cut out of mapped memory.
        warnings.filterwarnings("ignore", ".*dataloader is not resumable.*")
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*exists and is not empty.*")
        trainer.fit(model, data, ckpt_path=resume.last, weights_only=True)


def write_outputs(folder: Path, resume: ResumeFolder, run: TrackedRun) -> float:
    """Write the stage's files, and return the best validation loss."""
    rows = read_history(resume.history)
    losses = [row["val/loss"] for row in rows if "val/loss" in row]
    best = min(losses)
    metrics = last_values(rows) | {"val/loss": best, "val/loss_last": losses[-1]}
    write_history_table(rows, folder / "history.csv")
    with atomic_write(folder / "checkpoint.ckpt") as temporary:
        shutil.copyfile(resume.best, temporary)
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "run.json", run.reference())
    run.log_metrics({"val/loss_best": best})
    run.log_objective(best)
    run.log_artifact(folder / "history.csv")
    run.log_artifact(folder / "metrics.json")
    resume.remove()
    return best


def log_data(run: TrackedRun, prepared: Path, values: Mapping[str, Any], train: TokenDataset) -> None:
    """Note which data the run trains on."""
    digest = fingerprint(read_json(train.folder / "index.json"))[:16]
    card = read_json(prepared / "data_card.json")
    run.log_dataset(values["data"]["kind"], digest, str(prepared), profile=json.dumps(card["splits"]))
    run.log_artifact(prepared / "data_card.md")


def run_name(values: Mapping[str, Any]) -> str:
    """What tells one training from another in a list: size, codec, data."""
    model, codec = values["model"], values["codec"]
    size = f"{model['num_hidden_layers']}x{model['hidden_size']}"
    books = f" {codec['n_codebooks']}x{codec['codebook_size']}" if "codebook_size" in codec else ""
    return f"{size} · {codec['kind']}{books} · {values['data']['kind']}"


if __name__ == "__main__":
    main()
