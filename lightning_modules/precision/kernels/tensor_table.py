"""Where many tensors lie, in a form that one kernel launch can walk over."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_modules.precision.kernels import adamw

BLOCK = 4096
# How many numbers one thread moves at once; what lies at a multiple of them moves fastest.
ALIGNMENT = 8


def distances(tensors: Sequence[Tensor]) -> Tensor:
    """How far every tensor lies from the first one, in numbers, int64 [n_tensors] on the CPU."""
    first, size = tensors[0].data_ptr(), tensors[0].element_size()
    return torch.tensor([(tensor.data_ptr() - first) // size for tensor in tensors], dtype=torch.int64)


class TensorTable:
    """Tensors of one device in chunks of BLOCK numbers.

    Args:
        sizes: how many numbers each tensor holds.
        device: the GPU.
    """

    def __init__(self, sizes: Sequence[int], device: torch.device) -> None:
        tensors, starts = [], []
        for tensor, size in enumerate(sizes):
            n_chunks = -(-size // BLOCK)
            tensors.append(torch.full((n_chunks,), tensor, dtype=torch.int32))
            starts.append(torch.arange(n_chunks, dtype=torch.int32))
        self.device = device
        # The lists are kept, so that no other one can come to have the number of one of them.
        self._found: dict[int, tuple[Sequence[Tensor], Tensor]] = {}
        self.size_alignment = 1 if any(size % ALIGNMENT for size in sizes) else ALIGNMENT
        self.sizes = torch.tensor(sizes, dtype=torch.int64, device=device)
        self.chunk_tensors = torch.cat(tensors).to(device)
        self.chunk_starts = torch.cat(starts).to(device)

    @property
    def n_chunks(self) -> int:
        """Programs of a launch."""
        return self.chunk_tensors.numel()

    def offsets(self, tensors: Sequence[Tensor]) -> Tensor:
        """How far every tensor lies from the first one, in numbers [n_tensors]; of one list, looked up once.

        Raises:
            ValueError: when one is not contiguous, or does not begin at a multiple of ALIGNMENT numbers.
        """
        if id(tensors) not in self._found:
            for tensor in tensors:
                if not tensor.is_contiguous() or tensor.data_ptr() % (ALIGNMENT * tensor.element_size()):
                    raise ValueError(f"A tensor of shape {list(tensor.shape)} is not contiguous, or not aligned.")
            self._found[id(tensors)] = tensors, distances(tensors).pin_memory().to(self.device, non_blocking=True)
        return self._found[id(tensors)][1]

    def forget(self, tensors: Sequence[Tensor]) -> None:
        """Let go of a list that will not come again."""
        self._found.pop(id(tensors), None)

    def squared_norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """The sum of squares of all gradients, a scalar in FP32."""
        sums = torch.empty(self.n_chunks, device=self.device)
        adamw.sum_of_squares[(self.n_chunks,)](
            gradients[0],
            self.offsets(gradients),
            self.sizes,
            self.chunk_tensors,
            self.chunk_starts,
            sums,
            BLOCK=BLOCK,
            ALIGNMENT=ALIGNMENT,
            SIZE_ALIGNMENT=self.size_alignment,
            num_warps=8,
        )
        return sums.sum()

    def adamw(
        self,
        masters: Sequence[Tensor],
        copies: Sequence[Tensor],
        gradients: Sequence[Tensor],
        means: Sequence[Tensor],
        squares: Sequence[Tensor],
        decays: Tensor,
        scale: Tensor,
        *numbers: float,
    ) -> None:
        """One step of `masters`, which are written to their copies too.

        Args:
            masters: FP32.
            copies: of the masters, of one type.
            gradients: of one type.
            means: first moments, of one type.
            squares: second moments, of the same type.
            decays: weight decay of every tensor.
            scale: of the gradients, a scalar on the GPU.
            numbers: as the kernel names them, from `rate` on.
        """
        tensors = (masters, copies, gradients, means, squares)
        adamw.step[(self.n_chunks,)](
            *(group[0] for group in tensors),
            *(self.offsets(group) for group in tensors),
            self.sizes,
            decays,
            self.chunk_tensors,
            self.chunk_starts,
            scale,
            *numbers,
            BLOCK=BLOCK,
            ALIGNMENT=ALIGNMENT,
            SIZE_ALIGNMENT=self.size_alignment,
            num_warps=8,
        )
