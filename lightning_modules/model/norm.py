"""The norm of every block and latent."""

from torch import Tensor, nn

from lightning_modules.model import by_hand
from lightning_modules.model.by_hand.rms_norm import rms_norm


class RMSNorm(nn.RMSNorm):
    """torch's own, which on a CPU takes ten passes over memory where four do."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of `x` [..., D]."""
        if by_hand.applies_to(x) and self.weight.dtype == x.dtype:
            assert self.eps is not None
            return rms_norm(x, self.weight, self.eps)
        return super().forward(x)
