"""Quantisation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class QuantisationError:
    """How far a tensor's numbers moved when their type changed.

    Attributes:
        relative_l2: the norm of the difference over the norm of the tensor.
        max_abs: the greatest difference.
    """

    relative_l2: float
    max_abs: float
