"""Questions that compiled code asks once."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def traced_constant(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Let torch's compiler call a function while it traces, and take its result for a constant.

    That is `torch.compiler.assume_constant_result`, which imports the whole compiler to set this mark: seconds, for all
    who compile nothing.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
