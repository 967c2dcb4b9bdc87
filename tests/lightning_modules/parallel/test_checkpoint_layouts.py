"""A training that changes its layout after every step, from each to each other, is the one that never stopped."""

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.tensor import DTensor

from lightning_modules.callbacks.random_state import RANDOM_STATES, RandomState, derived_seed
from lightning_modules.callbacks.resume import step_checkpoints
from lightning_modules.configuration import OptimizerConfig, TrainerConfig
from lightning_modules.data_module import SpeechTokens
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.parallel.configuration import ParallelConfig
from lightning_modules.schedule import ScheduleConfig
from lightning_modules.trainer import build_trainer, model_device
from tests.conftest import TINY
from tests.lightning_modules.documents import rising_documents
from tests.ranks import run_on_ranks

DECODER = replace(TINY, num_hidden_layers=2)
LAYOUTS = {
    "ep2_fsdp2": ParallelConfig(ep=2, dp_shard=2),
    "ep4": ParallelConfig(ep=4),
    "hsdp2_ep2": ParallelConfig(dp_replicate=2, ep=2),
    "fsdp4": ParallelConfig(dp_shard=4),
}
# Every change from one layout to another, once.
ROUTE = [list(LAYOUTS)[i] for i in (0, 1, 0, 2, 0, 3, 1, 2, 1, 3, 2, 3, 0)]
FIRST = 2  # the step after which one device hands over
LAST = FIRST + len(ROUTE)
GLOBAL_BATCH = 8


class Recorder(L.Callback):
    """Keeps the loss of every step over all ranks, and what generators drew in it."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.drawn: dict[int, tuple[float, float]] = {}

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step not in self.drawn:
            self.drawn[trainer.global_step] = float(np.random.rand()), random.random()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # The losses of ranks and micro-batches are shares of the step's.
        loss = trainer.strategy.reduce(outputs["loss"].detach().double(), reduce_op="sum")
        step = batch_idx // trainer.accumulate_grad_batches
        self.losses[step] = self.losses.get(step, 0.0) + float(loss)


def train(layout: ParallelConfig | None, folder: Path, max_steps: int, resume: Path | None = None) -> dict[str, Any]:
    """Train up to `max_steps` of all, with a checkpoint after every step, and return what happened."""
    n_ranks = 1 if layout is None else 4
    config = TrainerConfig(
        accelerator="cpu", max_steps=max_steps, batch_size=2, sequence_length=24,
        accumulate_grad_batches=GLOBAL_BATCH // 2 // n_ranks, gradient_clip_val=1.0, val_every_steps=100,
        log_every_steps=1, checkpoint_every_steps=1, attend_across_documents=False, ema_decay=0.7, keep_last=2,
    )  # fmt: skip
    L.seed_everything(1, verbose=False)
    with model_device(layout):
        model = LanguageModel(
            DECODER, ObjectiveConfig(1.0, 0.3, 0.01, 1e-3), OptimizerConfig(1e-3, (0.9, 0.95), 0.1, 1e-8),
            ScheduleConfig(2, 0.5, 0.1), LAST, seed=1,
        )  # fmt: skip
    data = SpeechTokens(
        rising_documents(60, 1), rising_documents(2, 2), 24, 2, 2, LAST * config.accumulate_grad_batches, seed=3
    )
    trainer = build_trainer(config, layout, "fp32", False, folder)  # type: ignore[arg-type]
    recorder = Recorder()
    # Behind what brings the random state back.
    place = [type(callback) for callback in trainer.callbacks].index(RandomState) + 1
    trainer.callbacks.insert(place, recorder)
    trainer.fit(model, data, ckpt_path=resume, weights_only=True)
    happened = {"losses": recorder.losses, "drawn": recorder.drawn}
    if max_steps < LAST:
        return happened
    return happened | {
        "weights": whole(model.decoder.state_dict()),
        "average": whole(model.parameter_average),
        "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
    }


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: (t.full_tensor() if isinstance(t, DTensor) else t).clone() for n, t in tensors.items()}


def travel(rank: int, folder: Path) -> None:
    """Go along the route, a step in each layout; then once from the single device to each other layout."""
    resume = step_checkpoints(folder / "begun")[-1]
    for step, name in enumerate(ROUTE, start=FIRST):
        state = train(LAYOUTS[name], folder / f"{step}_{name}", step + 1, resume)
        torch.save(state, folder / f"route.{step}.{rank}.pt")
        resume = step_checkpoints(folder / f"{step}_{name}")[-1]
    for name in list(LAYOUTS)[1:]:
        state = train(LAYOUTS[name], folder / f"single_to_{name}", FIRST + 1, step_checkpoints(folder / "begun")[-1])
        torch.save(state, folder / f"{name}.{rank}.pt")
    dist.barrier()


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training of one device wrote, one that it handed over to four ranks, and one of those ranks."""
    folder = tmp_path_factory.mktemp("journey")
    torch.save(train(None, folder / "whole", LAST), folder / "whole.0.pt")
    train(None, folder / "begun", FIRST)
    run_on_ranks(travel, 4, folder)
    return folder


def read(folder: Path, name: str, rank: int = 0) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / f"{name}.{rank}.pt", weights_only=True)
    return state


def assert_equal_losses(state: dict[str, Any], uninterrupted: dict[str, Any], steps: list[int]) -> None:
    assert list(state["losses"]) == steps
    for step, loss in state["losses"].items():
        assert loss == pytest.approx(uninterrupted["losses"][step], abs=1e-6), step


def test_every_layout_goes_on_from_every_other(journey: Path) -> None:
    assert {*pairwise(ROUTE)} == {(a, b) for a in LAYOUTS for b in LAYOUTS if a != b}
    uninterrupted = read(journey, "whole")
    for step in range(FIRST, LAST):
        assert_equal_losses(read(journey, f"route.{step}"), uninterrupted, [step])
    end = read(journey, f"route.{LAST - 1}")
    assert end["learning_rate"] == uninterrupted["learning_rate"]
    for kind in ("weights", "average"):
        assert end[kind].keys() == uninterrupted[kind].keys()
        for name, tensor in uninterrupted[kind].items():
            torch.testing.assert_close(end[kind][name], tensor, rtol=0, atol=1e-4, msg=f"{kind} {name}")
            if name.endswith(("e_score_correction_bias", "expert_loads")):
                assert torch.equal(end[kind][name], tensor), name


@pytest.mark.parametrize("name", list(LAYOUTS)[1:])
def test_every_layout_goes_on_from_a_single_device(journey: Path, name: str) -> None:
    assert_equal_losses(read(journey, name), read(journey, "whole"), [FIRST])


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_single_device_goes_on_from_every_layout(journey: Path, tmp_path: Path, name: str) -> None:
    step = max(step for step, visited in enumerate(ROUTE[:-1], start=FIRST) if visited == name)
    folder = journey / f"{step}_{name}"
    state = train(None, tmp_path, min(step + 3, LAST), step_checkpoints(folder)[-1])
    assert_equal_losses(state, read(journey, "whole"), [*range(step + 1, min(step + 3, LAST))])


def test_random_numbers_go_on_across_layouts_and_differ_on_new_ranks(journey: Path) -> None:
    saved = torch.load(journey / "begun" / f"step-{FIRST:08d}.ckpt", weights_only=True)[RANDOM_STATES][0]
    firsts = set()
    for rank in range(4):
        seed = derived_seed(saved, rank, 4)
        numpy, python = np.random.RandomState(seed), random.Random(seed)
        for step in range(FIRST, LAST):
            assert read(journey, f"route.{step}", rank)["drawn"] == {step: (numpy.rand(), python.random())}
        firsts.add(read(journey, f"route.{FIRST}", rank)["drawn"][FIRST])
    assert len(firsts) == 4


def test_the_last_checkpoints_stay_and_nothing_else(journey: Path) -> None:
    names = [f"step-{step:08d}.ckpt" for step in (LAST - 1, LAST)]
    assert [path.name for path in step_checkpoints(journey / "whole")] == names
    for step, name in enumerate(ROUTE, start=FIRST):
        left = {path.name for path in (journey / f"{step}_{name}").iterdir()}
        # The best one, too, where the step was better than those before.
        assert left - {f"best-{step + 1:08d}"} == {f"step-{step + 1:08d}"}


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_folder_is_lightnings_own_and_opens_without_unpickling(journey: Path, name: str) -> None:
    step = FIRST + ROUTE.index(name)
    for file, holds_optimizer in ((f"best-{step + 1:08d}", False), (f"step-{step + 1:08d}", True)):
        folder = journey / f"{step}_{name}" / file
        meta = torch.load(folder / "meta.pt", weights_only=True)
        assert DecoderConfig(**meta["hyper_parameters"]["decoder"]) == DECODER
        assert meta["global_step"] == step + 1
        stored = FileSystemReader(folder).read_metadata().state_dict_metadata
        weights = {f"state_dict.decoder.{weight}" for weight in read(journey, "whole")["weights"]}
        assert {key for key in stored if key.startswith("state_dict.")} == weights
        assert any(key.startswith("optimizer_0.") for key in stored) == holds_optimizer
        # Each rank has written its own shards.
        assert len(list(folder.glob("*.distcp"))) == 4
