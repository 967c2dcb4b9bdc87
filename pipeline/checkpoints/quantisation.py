"""Types of weights, changed on the way from one file to another: BF16 to FP8 in blocks and back, and plain roundings.

A matrix in FP8 has one FP32 factor for every 128 × 128 block, partial ones at its edges, so that number · factor is the
weight (arXiv 2412.19437, section 3.3.2). The factor brings a block's largest magnitude to 448, the largest E4M3 number.
With s the factor of its block, a weight x moves by at most max(|x| · 2⁻⁴, s · 2⁻¹⁰): half a unit in the last of three
binary places, or of the smallest step near zero. Going back to BF16 rounds by at most |x| · 2⁻⁸ more.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.precision.emulation import BLOCK, E4M3, Quantised, dequantise, quantise_128x128
from pipeline.checkpoints.names import ALWAYS_FP32, is_linear
from pipeline.checkpoints.slices import read_rows
from pipeline.checkpoints.stored_tensor import StoredTensor

FP8_RELATIVE_ERROR = 2.0**-4
FP8_SMALLEST_ERROR = 2.0**-10


@dataclass(frozen=True)
class QuantisationError:
    """How far a tensor's numbers moved when their type changed.

    Attributes:
        relative_l2: the norm of the difference over the norm of the tensor; 0 for a tensor of zeros that stayed so.
        max_abs: the greatest difference.
    """

    relative_l2: float
    max_abs: float


class ChunkError(NamedTuple):
    """The difference that rounding made in some rows of a tensor, `norm` being that of the rows themselves."""

    name: str
    start: int
    difference: float
    norm: float
    max_abs: float


class RoundingLog:
    """How far numbers moved, piece by piece; what is read more than once counts once."""

    def __init__(self) -> None:
        self._chunks: dict[tuple[str, int], ChunkError] = {}
        self._new: dict[tuple[str, int], ChunkError] = {}

    def record(self, name: str, start: int, exact: Tensor, rounded: Tensor) -> None:
        """Note how rows of a tensor, from `start` on, changed."""
        exact = exact.float()
        difference = rounded.float() - exact
        norms = float(torch.linalg.vector_norm(difference)), float(torch.linalg.vector_norm(exact))
        greatest = max(abs(float(extreme)) for extreme in difference.aminmax())
        self._new[name, start] = ChunkError(name, start, *norms, greatest)

    def take_new(self) -> list[ChunkError]:
        """What was recorded since the last time."""
        new = list(self._new.values())
        self.add(new)
        self._new = {}
        return new

    def add(self, chunks: Iterable[ChunkError]) -> None:
        """Count in what another conversion, which this one goes on with, has recorded."""
        self._chunks |= {(chunk.name, chunk.start): chunk for chunk in chunks}

    def errors(self) -> dict[str, QuantisationError]:
        """The error of every tensor that was rounded."""
        of_tensor: dict[str, list[ChunkError]] = {}
        for chunk in (self._chunks | self._new).values():
            of_tensor.setdefault(chunk.name, []).append(chunk)
        return {name: _combine(chunks) for name, chunks in of_tensor.items()}


def retype(tensors: Mapping[str, StoredTensor], dtype: str, log: RoundingLog) -> dict[str, StoredTensor]:
    """The same tensors in another type; numbers change when they are read.

    Args:
        tensors: under their published names.
        dtype: `keep`, `bfloat16`, `float32`, or `fp8` for the projections (`is_linear`) and BF16 for the rest. FP8 that
            is there already stays as it is, bit for bit.
        log: takes down the difference wherever numbers are rounded.
    """
    if dtype == "keep":
        return dict(tensors)
    return {name: _retyped(name, stored, _target_type(name, dtype), log) for name, stored in tensors.items()}


def _target_type(name: str, dtype: str) -> torch.dtype:
    if name.endswith(ALWAYS_FP32) or dtype == "float32":
        return torch.float32
    return E4M3 if dtype == "fp8" and is_linear(name) else torch.bfloat16


def _retyped(name: str, stored: StoredTensor, dtype: torch.dtype, log: RoundingLog) -> StoredTensor:
    if stored.dtype == dtype or not stored.dtype.is_floating_point:
        return stored
    if dtype == E4M3:
        return _Quantiser(name, stored, log).quantised()
    reader = partial(_rounded_rows, name, stored, dtype, log)
    return replace(
        stored,
        dtype=dtype,
        scale=None,
        read=partial(reader, 0, stored.shape[0]),
        read_rows=None if stored.read_rows is None else reader,
    )


def _rounded_rows(
    name: str, stored: StoredTensor, dtype: torch.dtype, log: RoundingLog, start: int, stop: int
) -> Tensor:
    """`stored[start:stop]` in another type."""
    exact = read_rows(stored, start, stop) if stored.scale is None else _dequantised_rows(stored, start, stop)
    rounded = exact.to(dtype)
    if torch.promote_types(exact.dtype, dtype) != dtype:
        log.record(name, start, exact, rounded)
    return rounded


def _dequantised_rows(stored: StoredTensor, start: int, stop: int) -> Tensor:
    """FP32 `stored[start:stop]` of a matrix in FP8; whole blocks are read."""
    assert stored.scale is not None
    first, last = start // BLOCK, -(-stop // BLOCK)
    values = read_rows(stored, first * BLOCK, min(last * BLOCK, stored.shape[0]))
    numbers = dequantise(Quantised(values, read_rows(stored.scale, first, last)), (BLOCK, BLOCK))
    return numbers[start - first * BLOCK : stop - first * BLOCK]


class _Quantiser:
    """Rounds a matrix to FP8 as its rows are read, and keeps the factors until they are asked for."""

    def __init__(self, name: str, stored: StoredTensor, log: RoundingLog) -> None:
        self.name = name
        self.stored = stored
        self.log = log
        self.scales: dict[int, Tensor] = {}

    def quantised(self) -> StoredTensor:
        n_rows, n_columns = self.stored.shape
        blocks = (-(-n_rows // BLOCK), -(-n_columns // BLOCK))
        scale = StoredTensor(
            blocks, torch.float32, self.stored.file, partial(self.factors, 0, blocks[0]), read_rows=self.factors
        )
        return replace(
            self.stored,
            dtype=E4M3,
            read=partial(self.values, 0, n_rows),
            read_rows=None if self.stored.read_rows is None else self.values,
            scale=scale,
        )

    def values(self, start: int, stop: int) -> Tensor:
        """E4M3 numbers of rows `start:stop`; `start` begins a block."""
        exact = read_rows(self.stored, start, stop)
        rounded = quantise_128x128(exact)
        self.log.record(self.name, start, exact, dequantise(rounded, (BLOCK, BLOCK)))
        self.scales |= dict(enumerate(rounded.scales, start // BLOCK))
        return rounded.values

    def factors(self, start: int, stop: int) -> Tensor:
        """Factors of the rows of blocks `start:stop`; they are forgotten then."""
        return torch.cat([self._factors_of_row(row) for row in range(start, stop)])

    def _factors_of_row(self, row: int) -> Tensor:
        if row in self.scales:
            return self.scales.pop(row)[None]
        start = row * BLOCK
        return quantise_128x128(read_rows(self.stored, start, min(start + BLOCK, self.stored.shape[0]))).scales


def _combine(chunks: list[ChunkError]) -> QuantisationError:
    difference = math.hypot(*(chunk.difference for chunk in chunks))
    norm = math.hypot(*(chunk.norm for chunk in chunks))
    return QuantisationError(difference / norm if norm else difference, max(chunk.max_abs for chunk in chunks))
