"""Random numbers that depend on nothing but a row's seed and a place in it.

A row draws the same whether it is alone or in a batch, on a CPU or a GPU, inside a CUDA graph or not: its numbers are a
function of counters (Salmon et al., SC 2011), and no state moves on. The function is SplitMix64's (Steele et al.,
OOPSLA 2014), in 64-bit integers that wrap around.
"""

from torch import Tensor

# Of SplitMix64, as signed integers.
GOLDEN_RATIO = 0x9E3779B97F4A7C15 - 2**64
MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
# Bits of an FP32 number between 0 and 1 that are random.
N_BITS = 24


def uniform(seeds: Tensor, places: Tensor, use: int = 0) -> Tensor:
    """Numbers from 0 up to, but without, 1, FP32.

    Args:
        seeds: integers; of a shape that broadcasts with that of `places`.
        places: integers from 0 on, below 2⁴⁸.
        use: numbers of different uses are independent, at the same place too.
    """
    counters = places + (use << 48)
    bits = _mixed(_mixed(seeds) + counters * GOLDEN_RATIO)
    return _shifted(bits, 64 - N_BITS).float() * 2.0**-N_BITS


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's bijection of 64-bit integers, after which neighbours have nothing in common."""
    x = (x ^ _shifted(x, 30)) * MULTIPLIERS[0]
    x = (x ^ _shifted(x, 27)) * MULTIPLIERS[1]
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, n_bits: int) -> Tensor:
    """Shift right; torch fills up with the sign, where zeros have to be."""
    return (x >> n_bits) & ((1 << (64 - n_bits)) - 1)
