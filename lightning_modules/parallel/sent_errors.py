"""The errors that torch.distributed.checkpoint sends from the rank that has one to all others."""

import copyreg
from traceback import FrameSummary


def let_errors_be_sent() -> None:
    """Have the lines of a traceback pickled as file, number and function.

    Since Python 3.13 each holds its code too, which nothing pickles: the rank with the error ended with another one,
    "cannot pickle code objects", and the others waited for it.
    """
    copyreg.pickle(FrameSummary, _as_place)


def _as_place(line: FrameSummary) -> tuple[type[FrameSummary], tuple[str, int | None, str]]:
    return FrameSummary, (line.filename, line.lineno, line.name)
