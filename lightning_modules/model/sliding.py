"""How far a model looks back where a document is longer than any it was trained on.

A training whose windows hold W tokens teaches no distance beyond W. Longer documents are therefore seen through windows
of W tokens that move on by half of that: the first W tokens see all before them, every later one at least W / 2. These
are windows of their own, and no band of attention, because a state that attention reads has itself looked back.
"""

from typing import TypeVar

from torch import Tensor

Place = TypeVar("Place", int, Tensor)


def window_start(place: Place, context: int) -> Place:
    """Where the window begins that the token at `place` of its document, from 0 on, is seen in.

    Args:
        place: one place or many.
        context: W, at least 2.
    """
    half = context // 2
    beyond = (place - context) // half + 1
    return beyond.clamp_min(0) * half if isinstance(beyond, Tensor) else max(beyond, 0) * half
