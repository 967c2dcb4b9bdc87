import pytest
import torch

from pipeline.checkpoints.fp8_numbers import has_nan, widen

ALL = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
NUMBERS = torch.tensor([bits for bits in range(256) if bits & 0x7F != 0x7F], dtype=torch.uint8)


def test_every_number_is_widened_bit_for_bit() -> None:
    finite = NUMBERS.view(torch.float8_e4m3fn)
    assert torch.equal(widen(finite).view(torch.int32), finite.float().view(torch.int32))
    torch.testing.assert_close(widen(ALL), ALL.float(), rtol=0, atol=0, equal_nan=True)
    assert widen(ALL.reshape(16, 16)[:, 3:5]).shape == (16, 2)
    assert widen(ALL[:0]).shape == (0,)


@pytest.mark.parametrize("bits", [0x7F, 0xFF])
def test_a_nan_is_seen(bits: int) -> None:
    assert not has_nan(NUMBERS.view(torch.float8_e4m3fn))
    assert has_nan(torch.cat([NUMBERS, torch.tensor([bits], dtype=torch.uint8)]).view(torch.float8_e4m3fn))
    assert not has_nan(ALL[:0])
