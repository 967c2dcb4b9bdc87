"""Where an error came from."""

from types import TracebackType


def innermost(traceback: TracebackType | None) -> TracebackType | None:
    """The end of a traceback: what raised the error."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback
