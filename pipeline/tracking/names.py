"""Names of runs: MLflow's tables show fifteen characters or so, and these have to tell runs apart."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count

VISIBLE = 15
# What the overridden settings should take at most, so that a number fits behind them.
HEAD = 12
SEPARATOR = " · "
# A run that overrides nothing.
DEFAULT = "default"
# Letters that are left of a key's words but the last, from a way that cuts none to one that cuts most.
_CUTS = (99, 6, 5, 4, 3, 2, 1)


def run_title(overrides: Sequence[str], description: str) -> str:
    """The name of a run: what it was asked to do otherwise, then what it is.

    Args:
        overrides: `key=value` of each overridden setting, or the value alone where that says it all; the most telling
            first. As many as fit are written before the rest, with keys as long as fit.
        description: as in `3x192 · mel_rvq 4x256 · espeak`.
    """
    for n in range(len(overrides), 0, -1):
        if (head := _fitting(overrides[:n])) is not None:
            rest = [_written(overrides[n:], _whole)] if overrides[n:] else []
            return SEPARATOR.join([head, *rest, description])
    return SEPARATOR.join([_written(overrides, _whole) or DEFAULT, description])


def job_title(overrides: Sequence[str], description: str) -> str:
    """The name of a sweep's job: all that tells it from the other jobs, by values alone where keys do not fit.

    Args:
        overrides: as of `run_title`.
        description: what it is otherwise.
    """
    values = _written(overrides, lambda key: "")
    return SEPARATOR.join([_fitting(overrides) or values or DEFAULT, description])


def numbered(name: str, taken: Iterable[str]) -> str:
    """The name, with a number among its first fifteen letters where another run has the same: `default #2 · 3x192`."""
    taken = list(taken)
    if not any(_visible(other) == _visible(name) for other in taken):
        return name
    beginning = name.partition(SEPARATOR)[0][:HEAD].rstrip()
    rest = name[len(beginning) :]
    candidates = (f"{beginning} #{n}{rest if rest.startswith(SEPARATOR) else SEPARATOR + name}" for n in count(2))
    used = {other.partition(SEPARATOR)[0] for other in taken}
    return next(name for name in candidates if name.partition(SEPARATOR)[0] not in used)


def child_title(stage: str, parent: str) -> str:
    """The name of a run of another stage: what it did, then which training's."""
    return f"{stage.partition('-')[0]} {parent.partition(SEPARATOR)[0]}"


def _visible(name: str) -> str:
    return name.partition(SEPARATOR)[0][:VISIBLE]


def _fitting(overrides: Sequence[str]) -> str | None:
    """The overrides with keys as long as fit, initials only where nothing else does; None where not even these do."""
    cuts = [_written(overrides, partial(_cut, n=n)) for n in _CUTS]
    rooms = [*((text, HEAD) for text in cuts), *((text, VISIBLE) for text in cuts)]
    rooms.append((_written(overrides, _initials), HEAD))
    return next((text for text, room in rooms if 0 < len(text) <= room), None)


def _written(overrides: Sequence[str], way: Callable[[str], str]) -> str:
    return " ".join(_write(override, way) for override in overrides)


def _write(override: str, way: Callable[[str], str]) -> str:
    key, equals, value = override.partition("=")
    key = way(key.rpartition(".")[2])
    return override if not equals else f"{key}={value}" if key else value


def _whole(key: str) -> str:
    return key


def _cut(key: str, n: int) -> str:
    *words, last = key.split("_")
    return "_".join([*(word[:n] for word in words), last])


def _initials(key: str) -> str:
    return "".join(word[:1] for word in key.split("_"))
