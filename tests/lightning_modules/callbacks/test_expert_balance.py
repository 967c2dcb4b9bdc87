from collections import defaultdict
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from lightning_modules.callbacks.expert_balance import ExpertBalance
from lightning_modules.configuration import OptimizerConfig
from lightning_modules.data_module import SpeechTokens
from lightning_modules.language_model import LanguageModel
from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.objective import ObjectiveConfig
from lightning_modules.model.router import Routing
from lightning_modules.schedule import ScheduleConfig
from tests.lightning_modules.documents import ListedDocuments

SPEED = 0.01


def random_documents(n: int, seed: int) -> ListedDocuments:
    rng = np.random.default_rng(seed)
    return ListedDocuments([rng.integers(1, 40, size=20) for _ in range(n)])


class Counter(L.Callback):
    """Counts, at the routers themselves, the tokens that every expert receives in each optimizer step."""

    def __init__(self, accumulate: int) -> None:
        self.accumulate = accumulate
        self.loads: dict[int, list[Tensor]] = defaultdict(list)
        self.n_batches = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: LanguageModel) -> None:
        for layer, router in zip(pl_module.decoder.expert_layers(), pl_module.decoder.routers(), strict=True):
            router.register_forward_hook(lambda module, _, routing, layer=layer: self.count(layer, module, routing))

    def on_train_batch_start(self, *args: Any) -> None:
        self.n_batches += 1

    def count(self, layer: int, router: nn.Module, routing: Routing) -> None:
        if not router.training:
            return
        step = (self.n_batches - 1) // self.accumulate
        if len(self.loads[layer]) == step:
            self.loads[layer].append(torch.zeros(8))
        for expert in routing.indices.flatten().tolist():
            self.loads[layer][step][expert] += 1


class Values(CSVLogger):
    """Keeps what was logged at every step in memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.rows: dict[int, dict[str, float]] = defaultdict(dict)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.rows[step] |= metrics

    def save(self) -> None: ...


@pytest.mark.parametrize("accumulate", [1, 3])
def test_biases_follow_the_whole_step_and_nothing_but_training(
    tiny_config: DecoderConfig, tmp_path: Path, accumulate: int
) -> None:
    L.seed_everything(0, verbose=False)
    model = LanguageModel(
        tiny_config,
        ObjectiveConfig(1.0, 0.3, SPEED, 0.0),
        OptimizerConfig(1e-2, (0.9, 0.95), 0.0, 1e-8),
        ScheduleConfig(0, 1.0, 1.0),
        max_steps=3,
        seed=0,
    )
    data = SpeechTokens(random_documents(40, 0), random_documents(4, 1), 16, 2, 2, 3 * accumulate, seed=0)
    counter, logger = Counter(accumulate), Values(tmp_path)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=3, max_epochs=-1, accumulate_grad_batches=accumulate, log_every_n_steps=1,
        val_check_interval=accumulate, check_val_every_n_epoch=None, num_sanity_val_steps=0, logger=logger,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[counter, ExpertBalance()],
    )  # fmt: skip
    trainer.fit(model, data)
    assert sorted(counter.loads) == [1, 2, 3]
    for layer, router in zip(model.decoder.expert_layers(), model.decoder.routers(), strict=True):
        steps = counter.loads[layer]
        assert [float(load.sum()) for load in steps] == [accumulate * 2 * 16 * 2] * 3
        expected = sum(SPEED * torch.sign(load.mean() - load) for load in steps)
        torch.testing.assert_close(router.e_score_correction_bias, expected)
        for step, load in enumerate(steps):
            row = logger.rows[step]
            counts = load.numpy()
            assert row[f"moe/max_violation/layer_{layer}"] == pytest.approx(counts.max() / counts.mean() - 1, abs=1e-5)
            assert row[f"moe/load_cv/layer_{layer}"] == pytest.approx(counts.std() / counts.mean(), abs=1e-5)
        # Validations follow steps 1, 2 and 3 where nothing accumulates: the second finds what one step moved.
        if accumulate == 1:
            running = torch.full((8,), 1 / 8)
            for step, load in enumerate(steps):
                before, running = running, 0.99 * running + 0.01 * load / load.sum()
                drift = float((running - before).abs().sum() / 2)
                if step:
                    assert logger.rows[step][f"moe/load_drift/layer_{layer}"] == pytest.approx(drift, abs=1e-6)
        assert logger.rows[2][f"moe/bias_range/layer_{layer}"] == pytest.approx(float(expected.max() - expected.min()))
