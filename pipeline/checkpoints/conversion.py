"""One layout to another, tensor by tensor."""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from lightning_modules.parallel.checkpoint_folder import commit, partial_path, remove
from pipeline.checkpoints.integrity import verify_bytes
from pipeline.checkpoints.names import EXPERT_LOADS, in_prediction_module
from pipeline.checkpoints.quantisation import QuantisationError, RoundingLog, retype
from pipeline.checkpoints.registry import LAYOUTS, WRITERS
from pipeline.checkpoints.stored_tensor import CheckpointSource, DamagedCheckpointError
from pipeline.checkpoints.writing.checksums import CHECKSUMS_FILE, checksums_path, verify, write_checksums
from pipeline.checkpoints.writing.journal import JOURNAL_FILE, Journal, source_state
from pipeline.checkpoints.writing.plan import ConversionOptions, Plan
from pipeline.plumbing.fingerprint import fingerprint

__all__ = ["Conversion", "ConversionOptions", "WrittenFile", "convert", "verify"]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class WrittenFile:
    """A file of the target: its name there, its size, and its SHA-256."""

    name: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class Conversion:
    """What a conversion has done.

    Attributes:
        layout: of the target.
        target: the file or folder.
        files: all that was written.
        renamed: (name in the source, name in the target) of every tensor that is called differently.
        dropped: published names of what was left out, as asked for.
        quantisation: by published name, how far the numbers moved of tensors that were rounded.
        n_tensors: in the target.
        n_bytes: of the target's files.
        resumed_files: how many of them a conversion before, which was killed, had already written.
        notes: what a user of the target has to know.
    """

    layout: str
    target: Path
    files: tuple[WrittenFile, ...]
    renamed: tuple[tuple[str, str], ...]
    dropped: tuple[str, ...]
    quantisation: Mapping[str, QuantisationError]
    n_tensors: int
    n_bytes: int
    resumed_files: int
    notes: tuple[str, ...] = ()


def convert(
    source: CheckpointSource,
    target: Path,
    layout: str,
    options: ConversionOptions,
    progress: Progress | None = None,
) -> Conversion:
    """Write a checkpoint in another layout.

    Args:
        source: what `open_checkpoint` found.
        target: the file or folder to write; one that is there is replaced when the new one is whole.
        layout: a name of `WRITERS`.
        options: types, sizes, and what to leave out.
        progress: called with (file, bytes written, bytes in all) as the conversion goes on.

    Raises:
        ValueError: when the layout cannot hold what the source has; nothing is written then.
        DamagedCheckpointError: when the source turns out damaged on the way; nothing is left then.
    """
    if layout not in WRITERS:
        raise ValueError(f"layout is '{layout}'; choose one of {', '.join(WRITERS)}.")
    if target.resolve() == source.path.resolve() or source.path.resolve() in target.resolve().parents:
        raise ValueError(f"{target} would be written over its own source; choose another target.")
    chosen, dropped = _without(source, options.drop)
    log = RoundingLog()
    retyped = replace(
        chosen,
        tensors=retype(chosen.tensors, options.dtype, log),
        separate=retype(chosen.separate, options.dtype, log),
    )
    plan = WRITERS[layout].plan(retyped, options)
    if not plan.is_folder and target.is_dir():
        raise ValueError(f"{target} is a folder, but {layout} checkpoints are single files; choose another target.")
    verify_bytes(source.path)
    journal = Journal.open(partial_path(target), _fingerprint(source, layout, options, plan))
    resumed = tuple(journal.finished)
    for entry in journal.finished.values():
        log.add(entry.rounding)
    try:
        _write_files(plan, target, journal, log, progress)
    except DamagedCheckpointError:
        remove(journal.folder)
        raise
    files = tuple(WrittenFile(e.name, e.checksum.n_bytes, e.checksum.sha256) for e in journal.finished.values())
    _take_place(journal, plan, target)
    return Conversion(
        layout=layout,
        target=target,
        files=files,
        renamed=_renamed(retyped, layout) + plan.copies,
        dropped=dropped,
        quantisation=log.errors(),
        n_tensors=plan.n_tensors,
        n_bytes=sum(file.n_bytes for file in files),
        resumed_files=len(resumed),
        notes=plan.notes,
    )


def _without(source: CheckpointSource, drop: tuple[str, ...]) -> tuple[CheckpointSource, tuple[str, ...]]:
    """The source without what is to be left out, and the names of that."""
    config = source.config
    dropped = [
        name
        for name in source.tensors
        if ("mtp" in drop and in_prediction_module(name, config))
        or ("expert_loads" in drop and name.endswith(EXPERT_LOADS))
    ]
    tensors = {name: stored for name, stored in source.tensors.items() if name not in set(dropped)}
    if "mtp" in drop:
        dropped += source.separate
        source = replace(source, config=replace(config, num_nextn_predict_layers=0), separate={})
    return replace(source, tensors=tensors), (*source.dropped, *dropped)


def _write_files(plan: Plan, target: Path, journal: Journal, log: RoundingLog, progress: Progress | None) -> None:
    """Write every file that is not whole yet."""
    total = sum(file.n_bytes for file in plan.files)
    done = 0

    def advance(name: str, n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        if progress is not None:
            progress(name, done, total)

    for file in plan.files:
        name = file.name if plan.is_folder else target.name
        if name in journal.finished:
            advance(name, file.n_bytes)
            continue
        sha256 = file.write(journal.folder / name, partial(advance, name))
        journal.add(name, log.take_new(), sha256)


def _take_place(journal: Journal, plan: Plan, target: Path) -> None:
    """Give what was written its name."""
    checksums = {entry.name: entry.checksum for entry in journal.finished.values()}
    if plan.is_folder:
        write_checksums(journal.folder / CHECKSUMS_FILE, checksums)
        commit(target)
        remove(target / JOURNAL_FILE)
        return
    os.replace(journal.folder / target.name, target)
    write_checksums(checksums_path(target), checksums)
    remove(journal.folder)


def _fingerprint(source: CheckpointSource, layout: str, options: ConversionOptions, plan: Plan) -> str:
    repairs = (source.renamed, source.initialised, source.missing)
    files = [(file.name, file.n_bytes) for file in plan.files]
    described = (asdict(source.config), layout, asdict(options))
    return fingerprint(source.layout, source_state(source.path), source.weights, *repairs, *described, files)


def _renamed(source: CheckpointSource, layout: str) -> tuple[tuple[str, str], ...]:
    """(name in the source, name in the target) of every tensor that the two layouts call differently."""
    before, after = LAYOUTS[source.layout].names(source.config), LAYOUTS[layout].names(source.config)
    names = [(before.get(name, name), after.get(name, name)) for name in source.tensors]
    return tuple(dict.fromkeys(pair for pair in names if pair[0] != pair[1]))
