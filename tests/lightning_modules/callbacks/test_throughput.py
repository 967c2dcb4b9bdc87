from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lightning_modules.batch import Batch
from lightning_modules.callbacks.throughput import Throughput
from lightning_modules.configuration import OptimizerConfig
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.schedule import ScheduleConfig


class Clock:
    """A training whose time is told by hand."""

    def __init__(
        self,
        config: DecoderConfig,
        depth: int,
        world_size: int,
        monkeypatch: pytest.MonkeyPatch,
        log_every: int = 1,
    ) -> None:
        self.now = 100.0
        self.rates: list[float] = []
        self.depth = depth
        # Every rank has as many tokens more than the one before, and works as much longer, as the first does.
        strategy = SimpleNamespace(
            all_gather=lambda own: torch.stack([own * n for n in range(1, world_size + 1)]),
            host_of=lambda rank: f"node{rank}",
        )
        self.trainer = SimpleNamespace(
            global_step=0,
            world_size=world_size,
            log_every_n_steps=log_every,
            strategy=strategy,
            is_global_zero=True,
        )
        self.of_ranks: list[dict[str, float]] = []
        self.module = LanguageModel(
            replace(config, num_nextn_predict_layers=depth),
            ObjectiveConfig(1.0, 0.3, 0.001, 0.0),
            OptimizerConfig(1e-3, (0.9, 0.95), 0.0, 1e-8),
            ScheduleConfig(0, 1.0, 1.0),
            max_steps=10,
            seed=0,
        )
        monkeypatch.setattr(self.module, "log", self.log)
        monkeypatch.setattr(self.module, "log_dict", self.of_ranks.append)
        self.waiting = SimpleNamespace(seconds=0.0, start=lambda: None, stop=lambda: None)
        monkeypatch.setattr("lightning_modules.callbacks.throughput.WaitingTime", lambda: self.waiting)
        monkeypatch.setattr("lightning_modules.callbacks.throughput.time.perf_counter", lambda: self.now)
        self.callback = Throughput()
        self.callback.on_train_start(self.trainer, self.module)

    def log(self, name: str, value: torch.Tensor) -> None:
        if name == "throughput/tokens_per_second":
            self.rates.append(float(value))

    def batch(
        self, seconds: float, windows: int, sequence_length: int, steps: bool = True, waited: float = 0.0
    ) -> None:
        self.now += seconds
        self.waiting.seconds += waited
        self.trainer.global_step += steps
        tokens = torch.zeros(windows, sequence_length + 1 + self.depth, dtype=torch.long)
        self.callback.on_train_batch_end(self.trainer, self.module, {}, Batch.whole_step(tokens, tokens, self.depth), 0)


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("world_size", [1, 3])
def test_input_tokens_per_second_over_all_ranks(
    tiny_config: DecoderConfig, monkeypatch: pytest.MonkeyPatch, depth: int, world_size: int
) -> None:
    clock = Clock(tiny_config, depth, world_size, monkeypatch)
    clock.batch(seconds=2.0, windows=4, sequence_length=16)
    clock.batch(seconds=0.5, windows=4, sequence_length=16)
    n_shares = world_size * (world_size + 1) / 2
    assert clock.rates == pytest.approx([n_shares * 64 / 2.0, n_shares * 64 / 0.5])


def test_every_rank_has_a_line_of_its_own(tiny_config: DecoderConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Clock(tiny_config, 0, 1, monkeypatch)
    alone.batch(seconds=2.0, windows=4, sequence_length=16)
    assert alone.of_ranks == []
    three = Clock(tiny_config, 0, 3, monkeypatch)
    three.batch(seconds=2.0, windows=4, sequence_length=16)
    lines, work = three.of_ranks
    assert {name: float(rate) for name, rate in lines.items()} == {
        f"throughput/tokens_per_second/rank_{rank}": 32.0 * (rank + 1) for rank in range(3)
    }
    assert list(work) == [f"throughput/work_seconds_per_step/rank_{rank}" for rank in range(3)]


def test_work_is_a_steps_time_without_waiting_and_a_rank_that_has_more_of_it_twice_is_named(
    tiny_config: DecoderConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(tiny_config, 0, 3, monkeypatch, log_every=2)
    for _ in range(2):
        clock.batch(seconds=2.0, windows=4, sequence_length=16)
        clock.batch(seconds=2.0, windows=4, sequence_length=16, waited=2.0)
        assert float(clock.of_ranks[-1]["throughput/work_seconds_per_step/rank_2"]) == pytest.approx(3.0)
    # What is waited for while it validates is not training's.
    clock.callback.on_validation_start(clock.trainer, clock.module)
    clock.now, clock.waiting.seconds = clock.now + 60, clock.waiting.seconds + 30
    clock.callback.on_validation_end(clock.trainer, clock.module)
    clock.batch(seconds=2.0, windows=4, sequence_length=16)
    clock.batch(seconds=2.0, windows=4, sequence_length=16)
    assert float(clock.of_ranks[-1]["throughput/work_seconds_per_step/rank_0"]) == pytest.approx(2.0)
    assert [record.getMessage() for record in caplog.records] == [
        "Rank 2 (node2) works 1.5 x as long as the median rank, 3 s of a step of 2 s: the others wait."
    ]


def test_micro_batches_count_towards_their_optimizer_step(
    tiny_config: DecoderConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tiny_config, 1, 1, monkeypatch)
    for _ in range(2):
        clock.batch(seconds=1.0, windows=2, sequence_length=10, steps=False)
        clock.batch(seconds=3.0, windows=3, sequence_length=10)
    assert clock.rates == pytest.approx([50 / 4, 50 / 4])


def test_time_spent_validating_does_not_count(tiny_config: DecoderConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(tiny_config, 1, 1, monkeypatch)
    clock.batch(seconds=1.0, windows=1, sequence_length=10)
    clock.callback.on_validation_start(clock.trainer, clock.module)
    clock.now += 60
    clock.callback.on_validation_end(clock.trainer, clock.module)
    clock.batch(seconds=1.0, windows=1, sequence_length=10)
    assert clock.rates == pytest.approx([10.0, 10.0])


def test_steps_that_are_not_logged_count_towards_the_next_that_is(
    tiny_config: DecoderConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tiny_config, 0, 1, monkeypatch, log_every=3)
    for seconds in (1.0, 2.0, 1.0, 4.0, 1.0, 1.0):
        clock.batch(seconds, windows=1, sequence_length=12)
    assert clock.rates == pytest.approx([36 / 4, 36 / 6])
