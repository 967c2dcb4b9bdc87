"""How low optimizers bring the validation loss on equally many tokens, and what a step of each costs.

    python -m benchmarks.optimizers data/prepared --run optimizer=adamw --run optimizer=muon --seeds 3 trainer=gpu

Every run is the default experiment with its overrides, and with those that stand alone, which all runs share; it
trains on the prepared data named first, once with every seed. Prints one JSON line: for every run the lowest validation
loss of each training and the step it was reached at, all validations on the way, and the milliseconds of a median step.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import torch
from lightning.pytorch.loggers.logger import DummyLogger

from benchmarks.clock import StepClock
from benchmarks.command_line import count
from benchmarks.presets import compose
from lightning_modules.configuration import TrainerConfig
from lightning_modules.data_module import SpeechTokens
from lightning_modules.trainer import build_trainer
from pipeline.configuration.settings import read_settings
from pipeline.tokens.dataset import TokenDataset
from pipeline.training.model import build_model


class Watch(L.Callback):
    """The validation losses of a training, and the durations of its steps."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.clock = StepClock(torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def on_train_batch_start(self, *_: Any) -> None:
        """Begin a step."""
        self.clock.start()

    def on_train_batch_end(self, *_: Any) -> None:
        """End it, before it is validated."""
        self.clock.stop()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the loss."""
        self.losses[trainer.global_step] = float(trainer.callback_metrics["val/loss"])


def train(values: dict[str, Any], prepared: Path) -> Watch:
    """Train once as the experiment says, and keep nothing but what was watched."""
    config = read_settings(TrainerConfig, values["trainer"], "trainer")
    tokens, validation = (TokenDataset.open(prepared / split) for split in ("train", "validation"))
    L.seed_everything(values["seed"], verbose=False)
    model = build_model(values, tokens.vocabulary.size, config, None)
    model.initialize_weights()
    lookahead = 1 + model.decoder.config.num_nextn_predict_layers
    windows = config.sequence_length, lookahead, config.batch_size, config.n_batches, values["seed"]
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        trainer = build_trainer(config, None, values["precision"]["kind"], DummyLogger(), Path(folder), [watch])
        trainer.fit(model, SpeechTokens(tokens, validation, *windows))
    return watch


def result_of(watches: Sequence[Watch]) -> dict[str, Any]:
    """What came of the trainings of one run."""
    best = [min(watch.losses, key=lambda step: watch.losses[step]) for watch in watches]
    return {
        "best_loss": [round(watch.losses[step], 4) for watch, step in zip(watches, best, strict=True)],
        "best_step": best,
        "validations": [{step: round(loss, 4) for step, loss in watch.losses.items()} for watch in watches],
        "step_ms": round(statistics.median(ms for watch in watches for ms in watch.clock.milliseconds()), 2),
    }


def main(command_line: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("benchmarks.optimizers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("prepared", type=Path, help="data that prepare-data has written")
    parser.add_argument("shared", nargs="*", help="overrides of all runs")
    parser.add_argument("--run", action="append", required=True, help="overrides of one run, between commas")
    parser.add_argument("--seeds", type=count, default=3, help="trainings of each run")
    arguments = parser.parse_intermixed_args(command_line)
    results = {}
    for run in arguments.run:
        seeds = range(1, arguments.seeds + 1)
        experiments = [compose([*arguments.shared, *run.split(","), f"seed={seed}"]) for seed in seeds]
        results[run] = result_of([train(values, arguments.prepared) for values in experiments])
        # What is done is not lost when a later training is cut short.
        print(run, json.dumps(results[run]), file=sys.stderr, flush=True)
    settings = {"prepared": str(arguments.prepared), "shared": arguments.shared, "seeds": arguments.seeds}
    print(json.dumps({"benchmark": "optimizers", **settings, "results": results}))


if __name__ == "__main__":
    main()
