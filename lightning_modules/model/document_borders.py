"""Where packed documents begin and end, in a form whose shape hardly depends on them."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

FEWEST, SHORTEST = 16, 128


class DocumentBorders(NamedTuple):
    """The documents of rows that are laid end to end.

    Attributes:
        offsets: [C + 1] int32, where each document begins, and the end; places that are left over repeat the end.
        longest: tokens of the longest document, or more.
    """

    offsets: Tensor
    longest: int

    @classmethod
    def of(cls, document_ids: Tensor, room: tuple[int, int] = (FEWEST, SHORTEST)) -> "DocumentBorders":
        """The documents of `document_ids` [B, T] on a CPU; equal numbers side by side are one, padding is one too.

        `room` is for how many documents, and of which length, there is to be room at least. Both are powers of two, so
        that what is compiled or recorded for one batch serves others.
        """
        n_tokens = document_ids.numel()
        begins = torch.ones_like(document_ids, dtype=torch.bool)
        begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
        starts = begins.flatten().nonzero().flatten()
        lengths = starts.diff(append=torch.tensor([n_tokens]))
        capacity = max(room[0], _power_of_two(len(starts)))
        offsets = torch.full((capacity + 1,), n_tokens, dtype=torch.int32)
        offsets[: len(starts)] = starts
        return cls(offsets, max(room[1], _power_of_two(int(lengths.max()))))

    @classmethod
    def of_beginnings(cls, lengths: Tensor, width: int) -> "DocumentBorders":
        """The first `lengths` [B] tokens of each of B rows of `width`, and the rest of each row as a document too."""
        starts = torch.arange(len(lengths), device=lengths.device) * width
        offsets = torch.stack((starts, starts + lengths), dim=1).flatten()
        return cls(F.pad(offsets, (0, 1), value=len(lengths) * width).int(), width)

    @classmethod
    def of_rows(cls, n_rows: int, width: int, device: torch.device) -> "DocumentBorders":
        """Every row of `width` a document."""
        return cls(torch.arange(n_rows + 1, dtype=torch.int32, device=device) * width, width)

    @property
    def room(self) -> tuple[int, int]:
        """For how many documents, and of which length."""
        return len(self.offsets) - 1, self.longest


def _power_of_two(number: int) -> int:
    """The smallest that is not below `number`."""
    return 1 << (number - 1).bit_length()
