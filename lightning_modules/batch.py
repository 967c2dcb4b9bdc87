"""What training is fed with."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.model.document_borders import FEWEST, SHORTEST, DocumentBorders
from lightning_modules.model.token_loss import IGNORED_TARGET


class Batch(NamedTuple):
    """Packed documents, with the tokens beyond the window that the last targets need.

    Attributes:
        tokens: [B, T + 1 + depth] token ids; depth is that of multi-token prediction.
        document_ids: [B, T + 1 + depth] the document of every token; -1 for padding.
        positions: [B, T + 1 + depth] the place of every token in its document, from 0.
        n_targets: [B, 1 + depth] how many targets of each depth, that of the next token first, a window has on average
            over the whole optimizer step that the batch belongs to, in FP64: what losses are divided by.
        borders: of the documents in the first T positions, where attention on a GPU goes by them.
    """

    tokens: Tensor
    document_ids: Tensor
    positions: Tensor
    n_targets: Tensor
    borders: DocumentBorders | None = None

    @classmethod
    def whole_step(cls, tokens: Tensor, document_ids: Tensor, depth: int) -> "Batch":
        """A batch that is an optimizer step of its own, on one rank; positions count from where documents begin.

        Args:
            tokens: as above.
            document_ids: as above.
            depth: of multi-token prediction.
        """
        index = torch.arange(tokens.shape[1], device=tokens.device)
        begins = torch.ones_like(document_ids, dtype=torch.bool)
        begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
        positions = index - torch.where(begins, index, 0).cummax(dim=1).values
        n_positions = tokens.shape[1] - 1 - depth
        counts = [are_targets(document_ids, n_positions, ahead).sum(dim=1) for ahead in range(1, 2 + depth)]
        return cls(tokens, document_ids, positions, torch.stack(counts, dim=1).double())

    def with_borders(self, room: tuple[int, int] = (FEWEST, SHORTEST)) -> "Batch":
        """The same, still on a CPU, with `borders` that have `room` at least (see `DocumentBorders.of`)."""
        return self._replace(borders=DocumentBorders.of(self.document_ids[:, : self.n_positions], room))

    @property
    def n_positions(self) -> int:
        """T: where predictions are made."""
        return self.tokens.shape[1] - self.n_targets.shape[1]

    def targets(self) -> list[Tensor]:
        """What is to be predicted at every position [B, T], the next token first; IGNORED_TARGET: nothing."""
        return [self._targets(ahead) for ahead in range(1, self.n_targets.shape[1] + 1)]

    def _targets(self, ahead: int) -> Tensor:
        counts = are_targets(self.document_ids, self.n_positions, ahead)
        return self.tokens[:, ahead : ahead + self.n_positions].masked_fill(~counts, IGNORED_TARGET)


def are_targets(document_ids: Tensor, n_positions: int, ahead: int) -> Tensor:
    """Whether the token `ahead` of each of the first positions is to be predicted there [B, n_positions].

    A token of another document is not, and padding is not.
    """
    here, there = document_ids[:, :n_positions], document_ids[:, ahead : ahead + n_positions]
    return (here == there) & (there >= 0)
