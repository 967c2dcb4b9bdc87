"""A training that began under earlier code goes on under today's, and could go back."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.callbacks.resume import step_checkpoints
from tests.lightning_modules.earlier_training import FIRST, LAST, WAYS, losses_of, train

ARCHIVE = Path(__file__).with_name("earlier_training.tar.xz")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The earlier training's checkpoints and losses."""
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_it_goes_on_with_the_losses_that_it_had(earlier: Path, tmp_path: Path, way: str) -> None:
    expected = json.loads((earlier / "losses.json").read_text())[way]
    suffix = ".ckpt" if WAYS[way][0] is None else ""
    losses = losses_of(way, tmp_path, earlier / f"{way}{suffix}")
    assert list(losses) == [str(step) for step in range(FIRST + 1, LAST + 1)]
    for step, loss in losses.items():
        assert loss == pytest.approx(expected[step], abs=1e-5), step


@pytest.mark.parametrize("way", [way for way, (strategy, _) in WAYS.items() if strategy is None])
def test_today_s_checkpoints_hold_what_earlier_ones_did(earlier: Path, tmp_path: Path, way: str) -> None:
    train(way, tmp_path)
    today = torch.load(step_checkpoints(tmp_path)[0], weights_only=True)
    before = torch.load(earlier / f"{way}.ckpt", weights_only=True)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "parameter_average", "random_states"):
        assert described(today[part]) == described(before[part]), part


def described(value: Any) -> Any:
    """Names, types and shapes of all that a checkpoint holds, but how AdamW's loop is written, and a GPU's draws."""
    if isinstance(value, dict):
        return {key: described(part) for key, part in value.items() if key not in ("fused", "cuda")}
    if isinstance(value, list | tuple):
        return [described(part) for part in value]
    return (value.dtype, value.shape) if isinstance(value, Tensor) else type(value)
