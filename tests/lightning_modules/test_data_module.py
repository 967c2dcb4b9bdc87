"""Packing: every token is an input exactly once an epoch, on any number of ranks, through any resumption."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_modules.batch import Batch
from lightning_modules.configuration import OptimizerConfig
from lightning_modules.data_module import Collate, OnePass, OptimizerSteps, RankSlices, SpeechTokens
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.packing import PackedDocuments
from lightning_modules.schedule import ScheduleConfig
from tests.lightning_modules.documents import numbered_documents
from tests.lightning_modules.fake_trainer import fake_trainer

DOCUMENTS = numbered_documents([5, 17, 3, 40, 8, 1, 30])
N_TOKENS = 104


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_share_the_windows_without_overlap(world_size: int) -> None:
    slices = [RankSlices(6, 4, rank, world_size) for rank in range(world_size)]
    batches = [list(rank_slices) for rank_slices in slices]
    together = sorted(index for rank in batches for index in rank)
    assert together == list(range(6 * 4 * world_size))
    # What a rank says of another's batch is what that one reads.
    assert [list(slices[0].windows(5, rank)) for rank in range(world_size)] == [rank[-4:] for rank in batches]
    # Going on from batch 2 takes up exactly where batch 2 would have been.
    resumed = [
        list(RankSlices(6, 4, rank, world_size, first_batch=2, first_window=2 * 4 * world_size))
        for rank in range(world_size)
    ]
    assert [rank[8:] for rank in batches] == resumed


@dataclass
class Portions:
    """How a part of a training is portioned, and after how many optimizer steps it ends."""

    world_size: int
    batch_size: int
    accumulate: int
    n_steps: int

    @property
    def windows_per_step(self) -> int:
        return self.world_size * self.batch_size * self.accumulate


def speech_tokens(batch_size: int, n_batches: int, sequence_length: int = 4) -> SpeechTokens:
    return SpeechTokens(DOCUMENTS, DOCUMENTS, sequence_length, 2, batch_size, n_batches, seed=7)


COURSES = {
    "one rank": [Portions(1, 2, 1, 20)],
    "three ranks": [Portions(3, 2, 1, 20)],
    "fewer ranks": [Portions(4, 2, 1, 5), Portions(2, 2, 1, 9), Portions(1, 2, 1, 20)],
    "more ranks": [Portions(1, 1, 1, 3), Portions(3, 1, 1, 6), Portions(4, 1, 1, 12)],
    "other batches": [Portions(2, 1, 2, 4), Portions(2, 3, 1, 7), Portions(2, 2, 3, 10)],
    "everything": [Portions(2, 3, 1, 2), Portions(3, 1, 4, 5), Portions(1, 5, 2, 7), Portions(4, 2, 1, 12)],
}


@pytest.mark.parametrize("course", COURSES.values(), ids=COURSES)
def test_no_window_is_lost_or_repeated_when_the_portions_change(course: list[Portions]) -> None:
    state: dict[str, Any] = {}
    step, trained = 0, []
    for part in course:
        states = []
        for rank in range(part.world_size):
            data = speech_tokens(part.batch_size, n_batches=40 * part.accumulate)
            if state:
                data.load_state_dict(state)
            data.trainer = fake_trainer(rank, part.world_size, part.accumulate, step)
            loader = data.train_dataloader()
            assert len(loader) == 40 * part.accumulate
            batches = iter(loader.batch_sampler)  # type: ignore[arg-type]
            read = [next(batches) for _ in range((part.n_steps - step) * part.accumulate)]
            next(batches)  # loaded ahead, and not trained on
            assert read[-1] == list(data.windows_of(part.n_steps * part.accumulate - 1, rank))
            trained += [index for batch in read for index in batch]
            data.trainer.global_step = part.n_steps  # type: ignore[misc]
            states.append(data.state_dict())
        assert all(other == states[0] for other in states)
        state, step = states[0], part.n_steps
    assert sorted(trained) == list(range(len(trained)))
    # Several epochs went by, and each whole one had every token once.
    windows = PackedDocuments(DOCUMENTS, 4, 2, seed=7)
    n_epochs = len(trained) // len(windows)
    assert n_epochs >= 1
    seen = [windows[index] for index in sorted(trained)[: n_epochs * len(windows)]]
    tokens = torch.cat([window.tokens[:4][window.document_ids[:4] >= 0] for window in seen])
    assert torch.equal(tokens.bincount(), torch.full((N_TOKENS,), n_epochs))


def test_a_checkpoint_without_a_position_goes_on_from_its_step() -> None:
    data = speech_tokens(batch_size=3, n_batches=20)
    data.trainer = fake_trainer(rank=1, world_size=2, accumulate=2, global_step=4)
    assert next(iter(data.train_dataloader().batch_sampler)) == [51, 52, 53]  # type: ignore[arg-type]
    assert data.state_dict() == {"windows": 48, "sequence_length": 4, "packing": "best-fit"}


def test_a_position_is_taken_up_once() -> None:
    data = speech_tokens(batch_size=3, n_batches=20)
    assert data.state_dict() == {}
    data.load_state_dict({"windows": 100, "sequence_length": 4, "packing": "best-fit"})
    for first in (100, 0):  # the second training with the same object starts anew
        data.trainer = fake_trainer(rank=0, world_size=1)
        assert next(iter(data.train_dataloader().batch_sampler))[0] == first  # type: ignore[arg-type]


def test_every_window_knows_the_targets_of_its_whole_step() -> None:
    windows = PackedDocuments(DOCUMENTS, 16, 2, seed=7)
    first, per_step = 5, 6
    steps = OptimizerSteps(windows, first, per_step)
    for step in range(2 * len(windows) // per_step):
        indices = range(first + step * per_step, first + (step + 1) * per_step)
        expected = torch.stack([windows[i].n_targets for i in indices]).mean(dim=0)
        for index in indices:
            torch.testing.assert_close(steps[index].n_targets, expected)


def test_windows_that_were_packed_otherwise_cannot_be_counted_on() -> None:
    with pytest.raises(ValueError, match=r"packed in another way.*trainer\.start_from"):
        speech_tokens(1, 1).load_state_dict({"windows": 3, "sequence_length": 4})


def test_windows_of_another_length_cannot_be_counted_on() -> None:
    with pytest.raises(ValueError, match=r"windows of 8 tokens, and trainer.sequence_length is 4"):
        speech_tokens(1, 1).load_state_dict({"windows": 3, "sequence_length": 8})


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_all_ranks_validate_equally_many_batches_and_every_token_once(world_size: int, batch_size: int) -> None:
    loaders = []
    for rank in range(world_size):
        data = speech_tokens(batch_size, n_batches=1)
        data.trainer = fake_trainer(rank, world_size)
        loaders.append([batch for loader in data.val_dataloader() for batch in loader])
    shapes = [[batch.tokens.shape for batch in batches] for batches in loaders]
    assert all(rank_shapes == shapes[0] for rank_shapes in shapes)
    windows = [window for batches in loaders for batch in batches for window in zip(*batch[:4], strict=True)]
    inputs = torch.cat([tokens[:4][ids[:4] >= 0] for tokens, ids, *_ in windows])
    assert sorted(inputs.tolist()) == list(range(N_TOKENS))
    n_empty = sum(bool((ids == -1).all()) for _, ids, *_ in windows)
    n_windows = len(speech_tokens(1, 1).validation_windows[0])
    assert n_empty == -(-n_windows // world_size) * world_size - n_windows


@pytest.mark.filterwarnings("ignore")
def test_empty_windows_weigh_nothing(tiny_config: DecoderConfig) -> None:
    model = LanguageModel(
        tiny_config, ObjectiveConfig(1.0, 0.3, 0.0, 0.0), OptimizerConfig(1e-2, (0.9, 0.95), 0.1, 1e-8),
        ScheduleConfig(2, 0.5, 0.1), max_steps=1, seed=1,
    )  # fmt: skip
    documents = numbered_documents([5, 17, 3, 9])
    windows = OnePass(PackedDocuments(documents, 4, 2, seed=None))
    losses = []
    assert len(windows) == 9
    for n_windows in (9, 10, 16):  # all real, one beside a real one, and whole batches of empty ones
        loader = DataLoader(windows, batch_size=2, sampler=range(n_windows), collate_fn=Collate())
        trainer = L.Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False)
        losses.append(trainer.validate(model, loader, verbose=False)[0])
    assert losses[0]["val/loss"] > 1
    for name, loss in losses[0].items():
        assert losses[1][name] == pytest.approx(loss, rel=1e-6)
        assert losses[2][name] == pytest.approx(loss, rel=1e-6)


class Recorder(L.LightningModule):
    """Notes the first token of every window, and at which optimizer step it was trained on or validation took place."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.trained: list[tuple[int, list[int]]] = []
        self.validated: list[int] = []

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.trained.append((self.trainer.global_step, batch.tokens[:, 0].tolist()))
        return self.weight * batch.tokens.float().mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx == 0:
            self.validated.append(self.trainer.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Save(L.Callback):
    """Writes a checkpoint when the resumable one is written, after validation if it is due; then the machine dies."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if self.step % 2:
            self._save(trainer)

    def on_validation_end(self, trainer: L.Trainer, *args: Any) -> None:
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise ConnectionAbortedError("the machine went away")


def fit(batch_size: int, accumulate: int, callbacks: list[L.Callback], resume: Path | None = None) -> Recorder:
    """Train 8 optimizer steps, validated after every second."""
    module = Recorder()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=8,
        max_epochs=-1,
        accumulate_grad_batches=accumulate,
        val_check_interval=2 * accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    try:
        trainer.fit(module, speech_tokens(batch_size, 8 * accumulate), ckpt_path=resume, weights_only=True)
    except ConnectionAbortedError:
        return module
    assert trainer.global_step == 8
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("saved_at", [3, 4])  # between validations, and after one
@pytest.mark.parametrize(("batch_size", "accumulate"), [(2, 1), (1, 2), (1, 3), (3, 1)])
def test_a_real_trainer_goes_on_with_other_batches(
    tmp_path: Path, saved_at: int, batch_size: int, accumulate: int
) -> None:
    windows = speech_tokens(1, 1).train_windows
    begun = fit(2, 2, [Save(tmp_path / "x.ckpt", saved_at)])
    assert torch.load(tmp_path / "x.ckpt", weights_only=True)["SpeechTokens"]["windows"] == 4 * saved_at
    resumed = fit(batch_size, accumulate, [], resume=tmp_path / "x.ckpt")
    trained = begun.trained + resumed.trained
    firsts = [first for _, batch in trained for first in batch]
    assert firsts == [int(windows[i].tokens[0]) for i in range(len(firsts))]
    steps = [step for step, _ in resumed.trained]
    assert steps == [step for step in range(saved_at, 8) for _ in range(accumulate)]
    assert resumed.validated == [step for step in (4, 6, 8) if step > saved_at]
    assert all(len(batch) == batch_size for _, batch in resumed.trained)
