"""What the overrides of a command line ask of a sweep: jobs, seeds, a space to search; and what none can have."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import IntervalSweep, Override

from pipeline.configuration.command_line import OUTPUTS
from pipeline.sweeping.job import SEED, without_seed
from pipeline.sweeping.space import Choice, Dimension, Range

TRAINING = "train"


def combinations(parsed: Sequence[Override]) -> list[list[str]]:
    """The overrides of every combination of values.

    Raises:
        ValueError: when a value is a range to search.
    """
    for override in parsed:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise ValueError(
                f"{override.input_line} is a range, of which there is no every value; list the values, with commas, or "
                "have the range searched with sweep=optuna."
            )
    return [list(job) for job in BasicSweeper.split_arguments(list(parsed), None)[0]]


def of_seeds(overrides: Sequence[str], first: int, n_seeds: int) -> list[list[str]]:
    """A configuration once for each of its seeds."""
    if n_seeds == 1:
        return [list(overrides)]
    return [[*without_seed(overrides), f"{SEED}={first + i}"] for i in range(n_seeds)]


def space_of(parsed: Sequence[Override]) -> list[Dimension]:
    """What a search chooses from: the values with commas, and the ranges.

    Raises:
        ValueError: when there is nothing to choose from.
    """
    space: list[Dimension] = []
    for override in parsed:
        key = override.get_key_element()
        if override.is_interval_sweep():
            interval = override.value()
            assert isinstance(interval, IntervalSweep)
            assert interval.start is not None
            assert interval.end is not None
            space.append(Range(key, interval.start, interval.end, "log" in interval.tags))
        elif override.is_sweep_override():
            space.append(Choice(key, tuple(override.sweep_string_iterator())))
    if not space:
        raise ValueError(
            "sweep=optuna has nothing to search; give a range, as 'optimizer.lr=tag(log,interval(1e-4,1e-2))', or "
            "values with commas."
        )
    return space


def require_seeds_apart(parsed: Sequence[Override], n_seeds: int, stage: str) -> None:
    """Refuse what contradicts several seeds of each configuration.

    Raises:
        ValueError: with the remedy.
    """
    if n_seeds > 1 and stage != TRAINING:
        raise ValueError(f"sweep.seeds={n_seeds} is for trainings; {stage} takes several values of its own settings.")
    if n_seeds > 1 and any(o.is_sweep_override() and o.get_key_element() == SEED for o in parsed):
        raise ValueError(f"seed lists values, and sweep.seeds={n_seeds} makes more of them; leave one of both out.")


def refuse_places(parsed: Sequence[Override], stage: str) -> None:
    """Refuse a list of folders to train into: jobs have folders of their own, and all would train the same.

    Raises:
        ValueError: with the remedy.
    """
    if stage == TRAINING and any(o.is_sweep_override() and o.get_key_element() == OUTPUTS for o in parsed):
        raise ValueError(
            f"{OUTPUTS} lists folders, and each job of a sweep has one of its own, in hydra.sweep.dir; leave it out."
        )
