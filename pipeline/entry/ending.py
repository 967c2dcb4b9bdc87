"""How a command ends that does not end well: one sentence and status 2, or a traceback and status 1."""

import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.entry.errors import sentence_of
from pipeline.plumbing.rank import rank_of_this_process
from pipeline.plumbing.redaction import redacted

MENDABLE, BUG, INTERRUPTED = 2, 1, 130
# How long the other ranks stay for the first to tell what is wrong.
FAREWELL_SECONDS = 2.0
REPORT_IT = (
    "This is a fault of Melisma or of a library, not of what was asked for. Nothing half-written is left in place of "
    "earlier results; please report the lines above, with the command."
)


class JobFailedError(Exception):
    """A job of a multirun failed, and has been told of.

    Args:
        overrides: what set the job apart from the others.
        sentence: what went wrong; None: a bug.
    """

    def __init__(self, overrides: str, sentence: str | None) -> None:
        super().__init__(overrides, sentence)
        self.overrides, self.sentence = overrides, sentence

    def __str__(self) -> str:
        problem = self.sentence or "a fault of Melisma or of a library; its traceback stands above"
        return f"Of the sweep's jobs at least one failed, and the others went on. {self.overrides}: {problem}"


class CarriedError(BaseException):
    """Carries a job's error past Hydra, which would print lines of its own before it lets the error go on."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class Ending:
    """What a command that fails goes by.

    Attributes:
        show_traceback: show it for errors that a user can mend too.
        has_begun: all settings are known to be right; what fails from here on may fail on one rank alone.
    """

    show_traceback: bool = False
    has_begun: bool = False

    @contextmanager
    def of_command(self) -> Iterator[None]:
        """Tell of an error on standard error, and leave the process with its status."""
        try:
            yield
        except CarriedError as carried:
            sys.exit(self._tell(carried.error))
        except BrokenPipeError:
            # Whoever read our output has seen enough. What is left in the buffer has nowhere to go.
            sys.stdout = None
            sys.exit(0)
        except Exception as error:
            sys.exit(self._tell(error))
        except KeyboardInterrupt:
            # The line may hold a progress bar, and the terminal's ^C.
            print("\nInterrupted. The same command goes on from what was kept.", file=sys.stderr)
            sys.exit(INTERRUPTED)

    @contextmanager
    def of_job(self) -> Iterator[None]:
        """Let the error of the only job out of Hydra as it is."""
        try:
            yield
        except Exception as error:
            raise CarriedError(error) from error

    @contextmanager
    def of_job_among_others(self, overrides: str) -> Iterator[None]:
        """Tell of an error at once: Hydra runs the other jobs before it does."""
        try:
            yield
        except Exception as error:
            self._tell(error, f"{overrides}: " if overrides else "")
            raise JobFailedError(overrides, sentence_of(error)) from error

    def _tell(self, error: Exception, prefix: str = "") -> int:
        """Print what there is to say of an error, and return the status of the process."""
        rank = rank_of_this_process()
        if isinstance(error, JobFailedError):
            sentence: str | None = str(error)
            status = MENDABLE if error.sentence else BUG
        else:
            sentence = sentence_of(error)
            status = MENDABLE if sentence else BUG
        if rank and sentence and not self.has_begun:
            # Every rank finds the same. The first says it, unless a launcher ends it because another was gone before.
            time.sleep(FAREWELL_SECONDS)
            return status
        lines = []
        if sentence is None or self.show_traceback:
            lines += traceback.format_exception(error)
        if rank:
            prefix = f"rank {rank}: {prefix}"
        lines.append(f"ERROR: {prefix}{sentence if sentence else REPORT_IT}\n")
        print(redacted("".join(lines)), end="", file=sys.stderr, flush=True)
        return status
