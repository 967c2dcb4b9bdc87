from pathlib import Path

import pytest

from lightning_modules.model.configuration import DecoderConfig
from pipeline.checkpoints.registry import LAYOUTS, detect_layout, open_checkpoint


def test_nothing_is_said_to_be_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent does not exist"):
        open_checkpoint(tmp_path / "absent")


def test_a_folder_that_is_no_checkpoint_is_told_what_would_be(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="is no checkpoint of a known layout") as raised:
        detect_layout(tmp_path)
    assert all(name in str(raised.value) for name in LAYOUTS)


def test_a_layout_can_be_named(tiny_config: DecoderConfig, random_weights, save_training, tmp_path: Path) -> None:
    path = save_training(tmp_path / "trained.ckpt", tiny_config, random_weights(tiny_config))
    assert open_checkpoint(path, "lightning").layout == "lightning"
    with pytest.raises(ValueError, match=r"layout is 'onnx'; choose one of distributed, huggingface"):
        open_checkpoint(path, "onnx")
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        open_checkpoint(path, "huggingface")
