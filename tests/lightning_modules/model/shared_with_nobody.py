"""One of the ranks that share rows, without the others."""

from torch import Tensor

from lightning_modules.model.shared_rows import SharedRows


class SharedWithNobody(SharedRows):
    """One rank of P; where P is 1, it has all there is."""

    def whole(self, part: Tensor) -> Tensor:
        return self.joined(part)

    def add_up(self, sums: Tensor) -> Tensor:
        return sums
