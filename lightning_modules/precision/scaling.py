"""What of a matrix shares one scale when it is rounded to FP8."""

from enum import Enum


class Scaling(Enum):
    """What shares one scale.

    BLOCKWISE: 128 numbers along the inner dimension of a product, 128×128 of a weight (arXiv 2412.19437, section 3.3).
    ROWWISE: a row of either operand, along the inner dimension; scales are powers of two. They move no binary place:
        whatever shares one, numbers keep the same three of them, but those that are tiny beside the largest.
    TENSORWISE: all rows, and each matrix of weights.
    """

    BLOCKWISE = "blockwise"
    ROWWISE = "rowwise"
    TENSORWISE = "tensorwise"
