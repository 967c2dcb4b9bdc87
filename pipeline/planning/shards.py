"""How many numbers of each parameter one rank keeps, by arithmetic alone: what `parallelise` does, without doing it."""

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from torch import nn

from lightning_modules.model.configuration import DecoderConfig
from lightning_modules.model.counting import build_on_meta
from lightning_modules.model.experts import GroupedExperts, SegmentedExperts
from lightning_modules.model.router import Router
from lightning_modules.precision.emulation import BLOCK
from lightning_modules.precision.recipes import experts_pay, linear_pays
from pipeline.planning.settings import Layout

Shape = tuple[int, ...]
FP32_BYTES = 4


@dataclass(frozen=True)
class Unit:
    """Parameters that are gathered together, and whose gradients are reduced together.

    Attributes:
        block: `layers.3`, `mtp.0`, or empty for what lies outside blocks.
        shapes: of the whole parameters.
        is_expert: whether they are stacks of experts.
        is_fp32: whether they compute in FP32 whatever the precision is.
    """

    block: str
    shapes: tuple[Shape, ...]
    is_expert: bool = False
    is_fp32: bool = False

    @property
    def n_parameters(self) -> int:
        """All of them."""
        return sum(math.prod(shape) for shape in self.shapes)

    def n_gathered(self, layout: Layout) -> int:
        """Numbers that a rank gathers to compute, its own included."""
        return self.n_parameters // layout.ep if self.is_expert else self.n_parameters

    @property
    def quantised_shapes(self) -> list[Shape]:
        """Of matrices that a recipe of FP8 quantises.

        What lies outside blocks, routers and norms are not, and nothing that is faster in BF16.
        """
        if self.is_fp32 or not self.block:
            return []
        if self.is_expert:
            stacks = zip(self.shapes[0::2], self.shapes[1::2], strict=True)
            return [shape for both in stacks if experts_pay(both[1][-1]) for shape in both]
        return [shape for shape in self.shapes if len(shape) > 1 and linear_pays(*shape)]

    def fp8_bytes(self, layout: Layout) -> int:
        """Bytes of rank 0's part of them, in blocks with FP32 scales, once for either side they are summed over."""
        n_ways = layout.ep if self.is_expert else 1
        return sum(2 * _fp8_bytes(shape) // n_ways for shape in self.quantised_shapes)

    def gathered_bytes(self, layout: Layout, number: int) -> int:
        """Bytes of as many numbers, of `number` bytes each where they are not FP32 always."""
        return self.n_gathered(layout) * (FP32_BYTES if self.is_fp32 else number)

    def n_shards(self, layout: Layout) -> int:
        """Ranks that share what is gathered."""
        return layout.n_expert_shards if self.is_expert else layout.n_dense_shards

    def local_sizes(self, layout: Layout) -> list[int]:
        """Numbers of each parameter that rank 0 keeps: the first, and the largest, part of it."""
        if self.is_expert:
            return [math.prod(shape) // layout.n_dense_shards for shape in self.shapes]
        return [math.ceil(shape[0] / layout.n_dense_shards) * math.prod(shape[1:]) for shape in self.shapes]

    def n_local(self, layout: Layout) -> int:
        """Numbers of all its parameters that rank 0 keeps."""
        return sum(self.local_sizes(layout))

    def hidden_sizes(self, layout: Layout) -> list[int]:
        """Numbers that rank 0 keeps of every parameter that Muon steps: matrices of blocks, but for routers'."""
        if self.is_fp32 or not self.block:
            return []
        sizes = zip(self.shapes, self.local_sizes(layout), strict=True)
        return [size for shape, size in sizes if len(shape) > 1]

    def local_bytes(self, layout: Layout, number: int) -> int:
        """Bytes of as many numbers, of `number` bytes each where they are not FP32 always."""
        return self.n_local(layout) * (FP32_BYTES if self.is_fp32 else number)


@lru_cache(maxsize=8)
def parameter_units(config: DecoderConfig) -> tuple[Unit, ...]:
    """The units of a decoder, those of a block side by side, what lies outside blocks last."""
    decoder = build_on_meta(config)
    units: list[Unit] = []
    within: set[int] = set()
    for name, block in [
        *((f"layers.{index}", block) for index, block in enumerate(decoder.layers)),
        *((f"mtp.{index}", block) for index, block in enumerate(decoder.mtp)),
    ]:
        experts = _parameters(block, GroupedExperts | SegmentedExperts)
        routers = _parameters(block, Router)
        own = {id(p): p for p in [*experts.values(), *routers.values()]}
        rest = {id(p): p for p in block.parameters() if id(p) not in own}
        units.append(Unit(name, tuple(tuple(p.shape) for p in rest.values())))
        if experts:
            units.append(Unit(name, tuple(tuple(p.shape) for p in experts.values()), is_expert=True))
            units.append(Unit(name, tuple(tuple(p.shape) for p in routers.values()), is_fp32=True))
        within |= {id(p) for p in block.parameters()}
    outside = tuple(tuple(p.shape) for p in decoder.parameters() if id(p) not in within)
    return (*units, Unit("", outside))


def n_local_parameters(config: DecoderConfig, layout: Layout) -> int:
    """Numbers of all parameters that rank 0 keeps."""
    return sum(unit.n_local(layout) for unit in parameter_units(config))


def n_local_hidden(config: DecoderConfig, layout: Layout) -> int:
    """Those of matrices that Muon steps."""
    return sum(size for unit in parameter_units(config) for size in unit.hidden_sizes(layout))


def local_bytes(config: DecoderConfig, layout: Layout, number: int) -> Counter[str]:
    """Bytes of each block's numbers that rank 0 keeps, `number` each where they are not FP32 always."""
    sizes: Counter[str] = Counter()
    for unit in parameter_units(config):
        sizes[unit.block] += unit.local_bytes(layout, number)
    return sizes


def _fp8_bytes(shape: Shape) -> int:
    *stack, rows, columns = shape
    n_blocks = math.ceil(rows / BLOCK) * math.ceil(columns / BLOCK)
    return math.prod(stack) * (rows * columns + FP32_BYTES * n_blocks)


def _parameters(block: nn.Module, kind: object) -> dict[int, nn.Parameter]:
    """Parameters within modules of `kind`, each once."""
    found = (module for module in block.modules() if isinstance(module, kind))  # type: ignore[arg-type]
    return {id(p): p for module in found for p in module.parameters()}
