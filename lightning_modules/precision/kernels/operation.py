"""Operations that the host calls in little time."""

from collections.abc import Callable
from typing import Any

import torch

NAMESPACE = "melisma_fp8"
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")


class Operation:
    """A function as one operation of torch, so that torch.compile leaves it alone and a recompute policy can name it.

    `torch.library.custom_op` looks at every call for gradients and for outputs that share memory with inputs, which
    takes the host as long as the launch itself. There are neither here.

    Args:
        function: without side effects on its arguments; its annotations are the schema, and its name, without what
            underlines it, that of the operation.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = function.__name__.strip("_")
        schema = torch.library.infer_schema(function, mutates_args=())
        _LIBRARY.define(self.name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(self.name, function, "CompositeExplicitAutograd")

    def register_fake(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Tell shapes and types of the outputs by a function of the same arguments."""
        torch.library.register_fake(f"{NAMESPACE}::{self.name}", function, lib=_LIBRARY)
        return function
