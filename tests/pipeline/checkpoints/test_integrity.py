from pathlib import Path

import pytest
import torch

from pipeline.checkpoints.integrity import check_finite, verify_bytes
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError
from tests.pipeline.checkpoints.malformed.corpus import flip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_a_number_that_is_none_is_found_in_every_type(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.ones(4, 4).to(dtype)
    check_finite("x", tensor, tmp_path)
    tensor.view(torch.uint8)[2, -tensor.itemsize :] = 0x7F if dtype.itemsize == 1 else 0xFF
    with pytest.raises(DamagedCheckpointError, match="x holds 1 numbers"):
        check_finite("x", tensor, tmp_path)


def test_what_has_no_checksums_passes_and_what_has_changed_does_not(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(100)}, tmp_path / "x.pt")
    torch.save({"a": torch.ones(100)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    verify_bytes(tmp_path / "x.pt")
    flip(tmp_path / "old.pt", 700)
    verify_bytes(tmp_path / "old.pt")
    flip(tmp_path / "x.pt", (tmp_path / "x.pt").read_bytes().index(torch.ones(100).numpy().tobytes()))
    with pytest.raises(DamagedCheckpointError, match="CRC-32"):
        verify_bytes(tmp_path / "x.pt")
