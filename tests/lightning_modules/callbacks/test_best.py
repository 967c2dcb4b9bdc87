import math
from pathlib import Path

import pytest
import torch

from lightning_modules.callbacks.best import BestCheckpoint
from lightning_modules.callbacks.resume import ResumeCheckpoint


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ({2: 3.0, 4: 1.0, 6: 2.0}, 4),
        ({2: 1.0, 4: 1.0, 6: 1.0}, 2),
        ({2: math.nan, 4: 5.0, 6: math.nan}, 4),
        ({2: math.nan, 4: math.nan, 6: math.inf}, 2),
    ],
)
def test_the_first_of_the_lowest_losses_is_the_best(
    fit_scripted, tmp_path: Path, losses: dict[int, float], best: int
) -> None:
    callback = BestCheckpoint(tmp_path)
    fit_scripted([callback], max_steps=6, val_every_steps=2, val_losses=losses)
    assert callback.step == best
    checkpoint = torch.load(tmp_path / f"best-{best:08d}.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["weight"] == best
    assert "optimizer_states" not in checkpoint


def test_a_worse_one_does_not_take_its_place_after_the_folder_was_moved(fit_scripted, tmp_path: Path) -> None:
    losses = {2: 1.0, 4: 5.0, 6: 3.0}

    def fit(folder: Path, **options: object) -> BestCheckpoint:
        best = BestCheckpoint(folder)
        callbacks = [best, ResumeCheckpoint(folder, every_n_steps=2)]
        fit_scripted(callbacks, max_steps=6, val_every_steps=2, val_losses=losses, **options)
        return best

    with pytest.raises(ConnectionAbortedError):
        fit(tmp_path / "here", interrupt_at=4)
    (tmp_path / "here").rename(tmp_path / "there")
    best = fit(tmp_path / "there", resume=tmp_path / "there" / "step-00000004.ckpt")
    assert (best.step, best.loss) == (2, 1.0)
    assert [path.name for path in (tmp_path / "there").glob("best-*")] == ["best-00000002.ckpt"]
    assert not (tmp_path / "here").exists()
