"""FP8 numbers as FP32 ones, many times faster than torch's own conversion, which takes them one by one.

An E4M3 number is a sign, four bits of exponent (bias 7) and three of mantissa; an FP16 number, five (bias 15) and ten.
Moved to their places there, the same bits mean the number times 2⁻⁸, the smallest ones included.
"""

import torch
from torch import Tensor

_SIGN, _MAGNITUDE = -(2**15), 0x3F80
_SCALE = 2.0**8


def widen(values: Tensor) -> Tensor:
    """FP32 numbers of an E4M3 tensor, equal to `values.float()` bit for bit; NaN as well."""
    bits = values.view(torch.int8).to(torch.int16)
    bits <<= 8
    signs = bits & _SIGN
    bits >>= 1
    bits &= _MAGNITUDE
    # All bits of the magnitude are set in NaN alone, which FP16 has other bits for.
    if bits.numel() and int(bits.max()) == _MAGNITUDE:
        return values.float()
    bits |= signs
    return bits.view(torch.float16).float().mul_(_SCALE)


def has_nan(values: Tensor) -> bool:
    """Whether there is a NaN in an E4M3 tensor; it has no infinities."""
    return bool(values.numel()) and int((values.view(torch.int8) & 0x7F).max()) == 0x7F
