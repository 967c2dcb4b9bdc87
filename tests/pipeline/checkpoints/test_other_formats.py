from pathlib import Path

import pytest
import torch

from pipeline.checkpoints.other_formats import check_factors, check_names
from pipeline.checkpoints.stored_tensor import DamagedCheckpointError, StoredTensor

E4M3 = torch.float8_e4m3fn


def stored(shape: tuple[int, ...], dtype: torch.dtype, scale: StoredTensor | None = None) -> StoredTensor:
    return StoredTensor(shape, dtype, Path("a.safetensors"), lambda: torch.zeros(shape).to(dtype), scale=scale)


@pytest.mark.parametrize(
    ("factors", "dtype", "message"),
    [
        ((200, 1), torch.float32, "a factor for every channel"),
        ((200,), torch.float32, "a factor for every channel"),
        ((1,), torch.float32, "one factor for the whole tensor"),
        ((), torch.float32, "one factor for the whole tensor"),
        ((4, 5), torch.float32, "a factor for every 64 x 64 numbers"),
        ((200, 3), torch.float32, "a factor for every 1 x 128 numbers"),
        ((2, 3), torch.bfloat16, "blocks of 128 x 128, but in torch.bfloat16"),
        ((2, 3), torch.float8_e8m0fnu, "blocks of 128 x 128, but in torch.float8_e8m0fnu"),
    ],
)
def test_factors_shared_out_otherwise_are_named(factors: tuple[int, ...], dtype: torch.dtype, message: str) -> None:
    weight = stored((200, 300), E4M3, stored(factors, dtype))
    with pytest.raises(DamagedCheckpointError, match=rf"o_proj\.weight is in FP8 with .*{message}.*may be whole"):
        check_factors("o_proj.weight", weight)


def test_factors_that_fit_no_way_of_sharing_come_from_elsewhere() -> None:
    with pytest.raises(DamagedCheckpointError, match=r"FP8 has FP32 factors \[2, 3\]: the files come from different"):
        check_factors("o_proj.weight", stored((200, 300), E4M3, stored((2, 7), torch.float32)))
    check_factors("o_proj.weight", stored((200, 300), E4M3, stored((2, 3), torch.float32)))
    check_factors("o_proj.weight", stored((200, 300), torch.bfloat16))


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        ("a.q_proj.qweight", "AWQ or GPTQ"),
        ("a.q_proj.weight_packed", "compressed-tensors"),
        ("a.q_proj.weight_scale", "per-channel or per-tensor factors"),
        ("a.q_proj.weight.absmax", "bitsandbytes"),
    ],
)
def test_other_formats_are_known_by_their_names(name: str, format_name: str) -> None:
    with pytest.raises(DamagedCheckpointError, match=rf"holds {name}, as {format_name}.*may be whole"):
        check_names(["a.q_proj.weight_scale_inv", name], Path("export"))
    check_names(["a.q_proj.weight_scale_inv", "a.q_proj.weight"], Path("export"))
