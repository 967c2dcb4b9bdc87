"""One pass over a conversion's tensors, source and target side by side, a piece of each in memory at a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.checkpoints.quantisation import RoundingLog, retype
from pipeline.checkpoints.slices import chunks, read_rows
from pipeline.checkpoints.stored_tensor import CheckpointSource, StoredTensor

# A block this large shows a trained matrix's spikes, and takes milliseconds.
BLOCK_SIDE = 2048
# A matrix of fewer rows or columns has singular values too few to tell noise from signal.
SMALLEST_SIDE = 16
SVD_RANK, SVD_ITERATIONS = 8, 4


@dataclass(frozen=True)
class TensorFacts:
    """What one tensor of the target is like, as numbers in FP32, beside the same tensor of the source.

    Attributes:
        shape: of the tensor.
        dtype: as it is stored in the target, without "torch.".
        source_dtype: likewise in the source.
        n_nonfinite: numbers that are NaN or infinite; where there are any, the other numbers mean nothing.
        lowest: the smallest number.
        highest: the largest.
        std: their standard deviation.
        relative_error: the norm of the difference to the source over the norm of the source.
        edge_ratio: a matrix's largest singular value over the edge of a random matrix's (see `edge_ratio`); NaN for
            vectors and very small matrices.
    """

    shape: tuple[int, ...]
    dtype: str
    source_dtype: str
    n_nonfinite: int
    lowest: float
    highest: float
    std: float
    relative_error: float
    edge_ratio: float

    @property
    def is_constant(self) -> bool:
        """Whether all numbers are the same."""
        return self.n_nonfinite == 0 and self.lowest == self.highest


def survey(source: CheckpointSource, target: CheckpointSource) -> dict[str, TensorFacts]:
    """Read every tensor that both have, and that neither had to make up, by its published name."""
    made_up = {*source.initialised, *target.initialised}
    originals, tensors = source.all_tensors, target.all_tensors
    names = [name for name in tensors if name in originals and name not in made_up]
    facts = {}
    with tqdm(total=sum(tensors[name].n_bytes for name in names), desc="checking", unit="B", unit_scale=True) as bar:
        for name in names:
            facts[name] = _facts(originals[name], tensors[name])
            bar.update(tensors[name].n_bytes)
    return facts


def edge_ratio(matrix: Tensor) -> float:
    """The largest singular value of a matrix [m, n] over σ(√m + √n), with σ the standard deviation of its numbers.

    That is the edge of the Marchenko–Pastur distribution: independent numbers have no singular values beyond it but by
    chance. A freshly drawn matrix has a ratio of about 1, what training has learnt sticks out (arXiv 1810.01075). The
    value is found by randomised iteration (arXiv 0909.4061), which is exact for spikes and at most some percent low at
    the edge. NaN when a side is shorter than 16, or all numbers are the same.
    """
    n_rows, n_columns = matrix.shape
    std = float(matrix.std())
    if min(n_rows, n_columns) < SMALLEST_SIDE or not 0 < std < math.inf:
        return math.nan
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        largest = float(torch.svd_lowrank(matrix, q=SVD_RANK, niter=SVD_ITERATIONS)[1][0])
    return largest / (std * (math.sqrt(n_rows) + math.sqrt(n_columns)))


def _facts(source: StoredTensor, target: StoredTensor) -> TensorFacts:
    n_nonfinite, lowest, highest, ratio = 0, math.inf, -math.inf, math.nan
    sums = torch.zeros(4, dtype=torch.float64)
    for start, numbers, original in _pieces(source, target):
        n_nonfinite += int((~numbers.isfinite()).sum())
        lowest, highest = min(lowest, float(numbers.min())), max(highest, float(numbers.max()))
        difference = torch.where(numbers == original, 0.0, numbers - original)
        sums += torch.stack([_sum(numbers), _sum(numbers**2), _sum(difference**2), _sum(original**2)])
        if start == 0 and numbers.ndim == 2 and n_nonfinite == 0:
            ratio = edge_ratio(numbers[:BLOCK_SIDE, :BLOCK_SIDE])
    total, squares, moved, norm = sums.tolist()
    count = math.prod(target.shape)
    return TensorFacts(
        shape=target.shape,
        dtype=str(target.dtype).removeprefix("torch."),
        source_dtype=str(source.dtype).removeprefix("torch."),
        n_nonfinite=n_nonfinite,
        lowest=lowest,
        highest=highest,
        std=math.sqrt(max(0.0, squares / count - (total / count) ** 2)),
        relative_error=math.sqrt(moved / norm) if norm else math.sqrt(moved),
        edge_ratio=ratio,
    )


def _pieces(source: StoredTensor, target: StoredTensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(first row, the target's rows, the source's) in FP32."""
    plain = retype({"source": source, "target": target}, "float32", RoundingLog())
    for start, numbers in chunks(plain["target"]):
        yield start, numbers.float(), read_rows(plain["source"], start, start + len(numbers)).float()


def _sum(numbers: Tensor) -> Tensor:
    return numbers.sum(dtype=torch.float64)
