"""Types of weights, changed on the way from one file to another: BF16 to FP8 in blocks and back, and plain roundings.

A matrix in FP8 has one FP32 factor for every 128 × 128 block, partial ones at its edges, so that number · factor is the
weight (arXiv 2412.19437, section 3.3.2). The factor brings a block's largest magnitude to 448, the largest E4M3 number.
With s the factor of its block, a weight x moves by at most max(|x| · 2⁻⁴, s · 2⁻¹⁰): half a unit in the last of three
binary places, or of the smallest step near zero. Going back to BF16 rounds by at most |x| · 2⁻⁸ more.
"""

import math
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.precision.emulation import BLOCK, E4M3, quantise_128x128
from pipeline.checkpoints.fp8_numbers import widen
from pipeline.checkpoints.names import ALWAYS_FP32, is_linear
from pipeline.checkpoints.slices import CACHED_NUMBERS, read_rows
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

    def record(self, name: str, start: int, pieces: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Note how rows of a tensor, from `start` on, changed: FP32 (exact, rounded), piece by piece."""
        differences, norms, greatest = [], [], 0.0
        for exact, rounded in pieces:
            difference = rounded - exact
            differences.append(float(torch.linalg.vector_norm(difference)))
            norms.append(float(torch.linalg.vector_norm(exact)))
            greatest = max(greatest, *(abs(float(extreme)) for extreme in difference.aminmax()))
        self._new[name, start] = ChunkError(name, start, math.hypot(*differences), math.hypot(*norms), greatest)

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
    rounded = torch.empty(stop - start, *stored.shape[1:], dtype=dtype)
    pieces = _round_into(rounded, stored, start, stop)
    exact_type = stored.dtype if stored.scale is None else torch.float32
    if torch.promote_types(exact_type, dtype) == dtype:
        deque(pieces, maxlen=0)
    else:
        log.record(name, start, ((exact, piece.float()) for exact, piece in pieces))
    return rounded


def _round_into(rounded: Tensor, stored: StoredTensor, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Fill `rounded` with `stored[start:stop]`, few enough at a time to stay in the cache: (exact FP32, rounded)."""
    for begin, exact in _exact_rows(stored, start, stop):
        piece = rounded[begin - start : begin - start + len(exact)]
        piece.copy_(exact)
        yield exact.float(), piece


def _exact_rows(stored: StoredTensor, start: int, stop: int) -> Iterator[tuple[int, Tensor]]:
    """`stored[start:stop]` piece by piece, (first row, rows): FP8 as FP32, other types as they are."""
    per_row = max(1, math.prod(stored.shape[1:]))
    if stored.scale is None:
        step = max(1, CACHED_NUMBERS // per_row)
        for index, rows in enumerate(read_rows(stored, start, stop).split(step)):
            yield start + index * step, rows
        return
    # Whole blocks are read.
    first, last = start // BLOCK, -(-stop // BLOCK)
    values = read_rows(stored, first * BLOCK, min(last * BLOCK, stored.shape[0]))
    scales = read_rows(stored.scale, first, last).repeat_interleave(BLOCK, dim=1)[:, : stored.shape[1]]
    step = max(1, CACHED_NUMBERS // per_row)
    for row in range(first, last):
        low, high = max(start, row * BLOCK), min(stop, (row + 1) * BLOCK, stored.shape[0])
        for begin in range(low, high, step):
            end = min(high, begin + step)
            yield begin, widen(values[begin - first * BLOCK : end - first * BLOCK]).mul_(scales[row - first])


class _Quantiser:
    """Rounds a matrix to FP8 as its rows are read, and keeps the factors until they are asked for.

    Both may be read by several threads: whoever asks for factors waits for those who are rounding.
    """

    def __init__(self, name: str, stored: StoredTensor, log: RoundingLog) -> None:
        self.name = name
        self.stored = stored
        self.log = log
        self.scales: dict[int, Tensor] = {}
        self._given: set[int] = set()
        self._n_rounding = 0
        self._changed = threading.Condition()

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
        with self._changed:
            self._n_rounding += 1
        try:
            exact = read_rows(self.stored, start, stop)
            values = torch.empty(exact.shape, dtype=E4M3)
            self.log.record(self.name, start, self._quantise(exact, values, start // BLOCK))
            return values
        finally:
            with self._changed:
                self._n_rounding -= 1
                self._changed.notify_all()

    def _quantise(self, exact: Tensor, values: Tensor, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Fill `values` a row of blocks at a time, from block row `first` on: (exact, rounded) FP32."""
        for index, (rows, target) in enumerate(zip(exact.split(BLOCK), values.split(BLOCK), strict=True), start=first):
            rounded = quantise_128x128(rows)
            target.copy_(rounded.values)
            self._keep(index, rounded.scales)
            spread = rounded.scales.repeat_interleave(BLOCK, dim=1)[:, : rows.shape[1]]
            yield rows.float(), widen(rounded.values).mul_(spread)

    def _keep(self, row: int, scales: Tensor) -> None:
        with self._changed:
            if row in self._given:
                self._given.remove(row)
            else:
                self.scales[row] = scales

    def factors(self, start: int, stop: int) -> Tensor:
        """Factors of the rows of blocks `start:stop`; they are forgotten then."""
        with self._changed:
            self._changed.wait_for(lambda: not self._n_rounding)
            return torch.cat([self._factors_of_row(row) for row in range(start, stop)])

    def _factors_of_row(self, row: int) -> Tensor:
        if row in self.scales:
            return self.scales.pop(row)
        self._given.add(row)
        start = row * BLOCK
        return quantise_128x128(read_rows(self.stored, start, min(start + BLOCK, self.stored.shape[0]))).scales


def _combine(chunks: list[ChunkError]) -> QuantisationError:
    difference = math.hypot(*(chunk.difference for chunk in chunks))
    norm = math.hypot(*(chunk.norm for chunk in chunks))
    return QuantisationError(difference / norm if norm else difference, max(chunk.max_abs for chunk in chunks))
