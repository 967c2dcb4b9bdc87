"""The weights of modules as the kernels of a step take them."""

from torch import Tensor, nn

from lightning_modules.model.kernels.few_rows import Matrix, Norm


def matrix_of(linear: nn.Linear) -> Matrix:
    """A projection's weight, in the type that it is kept in."""
    return Matrix(linear.weight)


def weight_of(linear: nn.Linear) -> Tensor:
    """A projection's weight, in the type of its inputs."""
    return linear.weight


def norm_of(norm: nn.RMSNorm) -> Norm:
    """A norm's weight and epsilon."""
    assert norm.eps is not None
    return Norm(norm.weight, norm.eps)
