import subprocess
import sys

import pytest
import torch

from pipeline.plumbing.device import check_device, device_of


def test_auto_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("auto") == device_of("cuda") == torch.device("cuda")
    assert device_of("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="device is cuda, and torch sees no GPU here"):
        device_of("cuda")


def test_what_is_no_choice_is_refused_without_torch() -> None:
    with pytest.raises(ValueError, match="evaluate.device is 'tpu'; choose one of auto, cpu, cuda."):
        check_device("evaluate.device", "tpu")
    code = "import sys, pipeline.plumbing.device; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
