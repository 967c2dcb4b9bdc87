"""Which errors a user can mend, and the one sentence that tells of each."""

import dis
import errno
import os
import re
from pathlib import Path
from typing import TypeGuard

from pipeline.entry.composition import composition_sentence
from pipeline.entry.frames import innermost

ROOTS = tuple(str(Path(__file__).resolve().parents[2] / package) for package in ("pipeline", "lightning_modules"))
# Python's own errors that say nothing to whoever did not write the line they come from.
BUGS = (
    ArithmeticError, AssertionError, AttributeError, IndexError, KeyError, NameError, NotImplementedError, SyntaxError,
    TypeError,
)  # fmt: skip
PLACES = "with paths.outputs, paths.prepared and paths.cache, or the command's own target or to"
REMEDIES = {
    errno.ENOSPC: f"free some space, or write to another disk {PLACES}",
    errno.EFBIG: f"write to a disk that takes larger files {PLACES}",
    errno.EDQUOT: f"free some space, or write to another disk {PLACES}",
    errno.EACCES: f"change its permissions, or choose another place {PLACES}",
    errno.EPERM: f"change its permissions, or choose another place {PLACES}",
    errno.EROFS: f"choose another place {PLACES}",
    errno.EMFILE: "raise the number of open files with `ulimit -n`",
}
TORCH_WRITER = re.compile(r"inline_container\.cc.*(unexpected pos|write failed|writing)|PytorchStreamWriter failed")
# libsndfile's number for whatever the operating system refuses; recordings that cannot be read are told of before.
SOUNDFILE_SYSTEM = 2
# What Gloo and NCCL say when a process at the other end is gone.
LOST_RANK = re.compile(r"gloo/transport.*?\] (?P<said>.*(?:reset|closed) by peer.*|.*Broken pipe.*)|ncclRemoteError")
MEMORY = (
    "Memory ran out{amount}; lower trainer.batch_size, trainer.sequence_length or the model's size, "
    "or set trainer.recompute=activations, or blocks for still less{graph}."
)


def sentence_of(error: BaseException) -> str | None:
    """What to tell a user of an error that he can mend; None for one that is a bug of ours or of a library."""
    if (said := composition_sentence(error)) is not None:
        return said
    # A recording that memory runs out in ends with an error of its own on top.
    if isinstance(error, RuntimeError) and _is_of_gpu(error.__context__):
        error = error.__context__
    if _is_out_of_memory(error):
        amount = re.search(r"(?:[Tt]ried to allocate|you tried to allocate) ([\d.]+ \w+)", str(error))
        graph = " or, where experts are spread over GPUs, trainer.cuda_graph=false" if _is_of_gpu(error) else ""
        return MEMORY.format(amount=f" when {amount[1]} more were asked for" if amount else "", graph=graph)
    if isinstance(error, OSError):
        return _of_operating_system(error)
    if (said := _of_writing(error) or _of_lost_rank(error)) is not None:
        return said
    if isinstance(error, BUGS) or not _was_raised_by_us(error):
        return None
    return str(error) or None


def _of_operating_system(error: OSError) -> str:
    """A sentence of ours as it is; the system's with the file, and what to do about it."""
    if error.errno is None or error.strerror is None:
        return str(error) or f"{type(error).__name__} without a word"
    where = f"{error.filename}: " if error.filename else ""
    remedy = f"; {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""
    return f"{where}{error.strerror}{remedy}."


def _of_writing(error: BaseException) -> str | None:
    """What safetensors, torch and libsndfile say of a disk that takes no more, each in an error of its own."""
    if type(error).__name__ == "SafetensorError" and (number := re.search(r"os error (\d+)", str(error))):
        return _of_operating_system(OSError(int(number[1]), os.strerror(int(number[1]))))
    if isinstance(error, RuntimeError) and TORCH_WRITER.search(str(error)):
        return f"A checkpoint could not be written whole: the disk takes no more; {REMEDIES[errno.ENOSPC]}."
    if type(error).__name__ == "LibsndfileError" and getattr(error, "code", 0) == SOUNDFILE_SYSTEM:
        file = re.search(r"'(.+)'", str(error))
        where = f" ({file[1]})" if file else ""
        return f"A sound could not be written{where}: the disk takes no more, or forbids it; {REMEDIES[errno.ENOSPC]}."
    return None


def _of_lost_rank(error: BaseException) -> str | None:
    """What torch raises on the ranks that are left."""
    if not isinstance(error, RuntimeError) or (found := LOST_RANK.search(str(error))) is None:
        return None
    return (
        f"Another rank has ended ({found['said'] or found[0]}); what it printed says why. The same command goes on "
        "from the last checkpoint, as torchrun does by itself."
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, torch's allocator of a GPU or that of the CPU had no more; torch's are RuntimeErrors."""
    if isinstance(error, MemoryError) or _is_of_gpu(error):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def _is_of_gpu(error: BaseException | None) -> TypeGuard[BaseException]:
    return type(error).__name__ == "OutOfMemoryError"


def _was_raised_by_us(error: BaseException) -> bool:
    """Whether a `raise` of this repository made the error, here or in a worker process: its words are meant for users.

    An error of the same type that numpy or torch raises within a line of ours is something else.
    """
    if type(error.__cause__).__name__ == "_RemoteTraceback":
        lines = str(error.__cause__).splitlines()
        frames = [number for number, line in enumerate(lines) if line.lstrip().startswith('File "')]
        if not frames:
            return False
        file = lines[frames[-1]].split('"')[1]
        statement = lines[frames[-1] + 1].strip() if frames[-1] + 1 < len(lines) else ""
        return file.startswith(ROOTS) and statement.startswith("raise")
    raised = innermost(error.__traceback__)
    if raised is None or not raised.tb_frame.f_code.co_filename.startswith(ROOTS):
        return False
    return raised.tb_frame.f_code.co_code[raised.tb_lasti] == dis.opmap["RAISE_VARARGS"]
