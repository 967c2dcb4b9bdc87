"""Torch's files; `malformed/pickles.py` and `malformed/archives.py` have those that are refused."""

from pathlib import Path

import pytest
import torch

from pipeline.checkpoints.files.pickle_file import open_pickle, stored, verify_archive
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError
from tests.pipeline.checkpoints.malformed.corpus import flip

BASE = torch.randn(10, 6)


@pytest.mark.parametrize("is_archive", [True, False])
def test_tensors_are_read_from_their_places(tmp_path: Path, is_archive: bool) -> None:
    tensors = {
        "matrix": BASE.clone(),
        "parameter": torch.nn.Parameter(BASE.clone()),
        "half": BASE.bfloat16(),
        "part": BASE[2:5],
        "other part": BASE[5:],
        "transposed": BASE.t(),
        "column": BASE[:, 1],
        "scalar": torch.tensor(3.0),
        "nothing": torch.empty(3, 0),
    }
    path = tmp_path / "x.pt"
    torch.save({"tensors": tensors, "step": 3}, path, _use_new_zipfile_serialization=is_archive)
    content = open_pickle(path)
    assert content["step"] == 3
    for name, tensor in tensors.items():
        found = stored(content["tensors"][name], path)
        assert (found.shape, found.dtype) == (tuple(tensor.shape), tensor.dtype)
        assert torch.equal(found.read(), tensor)
        assert found.read().is_contiguous()
        if found.read_rows is not None and len(tensor) > 2:
            assert torch.equal(found.read_rows(1, 3), tensor[1:3])


def test_an_archive_is_opened_without_reading_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(1000)}, path)
    assert open_pickle(path)["a"].is_meta


def test_fp8_is_read_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": BASE.to(torch.float8_e4m3fn)}, path)
    read = stored(open_pickle(path)["a"], path).read()
    assert torch.equal(read.view(torch.uint8), BASE.to(torch.float8_e4m3fn).view(torch.uint8))


def test_flipped_bits_of_numbers_are_found_when_the_archive_is_verified(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(1000), "b": torch.ones(1000)}, path)
    verify_archive(path)
    place = path.read_bytes().index(torch.ones(1000).numpy().tobytes()) + 2000
    flip(path, place)
    open_pickle(path)
    with pytest.raises(DamagedCheckpointError, match=r"x/data/1 does not have the CRC-32"):
        verify_archive(path)


def test_what_is_no_plain_tensor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    tensors = {"sparse": torch.eye(3).to_sparse(), "negative": torch.tensor([1 + 2j]).conj().imag}
    for name, tensor in tensors.items():
        torch.save({name: tensor}, path)
        with pytest.raises(DamagedCheckpointError, match=r"x\.pt"):
            stored(open_pickle(path)[name], path)


def test_no_file_is_said_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x\.pt does not exist"):
        open_pickle(tmp_path / "x.pt")
