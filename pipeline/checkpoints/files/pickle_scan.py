"""What a pickle would build, counted before anything of it is built."""

import io
import pickletools
from typing import IO, NamedTuple

from pipeline.checkpoints.stored_tensor import DamagedCheckpointError

# An object is counted wherever it is referred to. Honest files share little.
MOST_PER_OPCODE = 100
LEAST_ALLOWED = 100_000
# Opcodes that add to the object below their operands.
ADDING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")


class _Size:
    """How many objects one consists of, those it refers to among them."""

    def __init__(self, count: int) -> None:
        self.count = count


class _Operands(NamedTuple):
    """What an opcode takes off the stack, the lowest first."""

    sizes: list[_Size]

    @property
    def total(self) -> int:
        return sum(size.count for size in self.sizes)


def check_expansion(file: IO[bytes], n_pickles: int, label: str) -> None:
    """Raise unless unpickling ends in reasonable time, whatever it does with what it builds.

    A tuple of two references to a tuple of two references to a tuple … takes a few bytes a level, and its hash takes
    twice as long with each.

    Args:
        file: pickles, one after the other, from here on.
        n_pickles: how many.
        label: what the file is called in messages.

    Raises:
        DamagedCheckpointError: when it would not end, or these are no pickles.
    """
    try:
        for _ in range(n_pickles):
            # Whoever reads the pickles finds out for themselves that one is absent.
            if not file.read(1):
                return
            file.seek(-1, io.SEEK_CUR)
            _check_one(file, label)
    except DamagedCheckpointError:
        raise
    # Of damaged pickles: ValueError, IndexError and their like.
    except Exception as error:
        raise DamagedCheckpointError(
            f"{label} is no file of torch, or it is damaged ({type(error).__name__}: {error}); get it again."
        ) from None


def _check_one(file: IO[bytes], label: str) -> None:
    stack: list[_Size | None] = []
    memo: dict[int, _Size] = {}
    for n_opcodes, (opcode, argument, _) in enumerate(pickletools.genops(file), start=1):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            top = stack[-1]
            assert top is not None
            memo[len(memo) if argument is None else argument] = top
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
        elif opcode.name == "MARK":
            stack.append(None)
        else:
            size = _apply(opcode, stack)
            if size > MOST_PER_OPCODE * n_opcodes + LEAST_ALLOWED:
                raise DamagedCheckpointError(
                    f"{label} holds a few objects that refer to each other {size} times over, as no weights do; "
                    "it was made to keep a computer busy."
                )


def _apply(opcode: pickletools.OpcodeInfo, stack: list[_Size | None]) -> int:
    """Do to the stack what an opcode does; returns the size of what it leaves."""
    operands = _take(opcode, stack)
    if opcode.name in ADDING:
        target = operands.sizes[0]
        target.count = operands.total
        stack.append(target)
        return target.count
    if opcode.name == "DUP":
        stack += operands.sizes * 2
    else:
        stack += [_Size(1 + operands.total) for _ in opcode.stack_after]
    return operands.total


def _take(opcode: pickletools.OpcodeInfo, stack: list[_Size | None]) -> _Operands:
    taken: list[_Size] = []
    for kind in reversed(opcode.stack_before):
        if kind is pickletools.stackslice:
            continue
        if kind is pickletools.markobject:
            while (size := stack.pop()) is not None:
                taken.append(size)
        elif (size := stack.pop()) is not None:
            taken.append(size)
    return _Operands(taken[::-1])
