"""What was found before a preparation was refused: on the disk, for whoever has to mend it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.preparation.data_card import write_manifest
from pipeline.preparation.plan import Plan


def refused_folder(prepared: Path) -> Path:
    """Where the manifest of a refused corpus lies: beside the prepared data, which stay as they are."""
    return prepared.with_name(f"{prepared.name}.refused")


@contextmanager
def listed_when_refused(plan: Plan, prepared: Path) -> Iterator[None]:
    """Write the manifest into `refused_folder` when the block raises a ValueError, which then names it."""
    shutil.rmtree(refused_folder(prepared), ignore_errors=True)
    try:
        yield
    except ValueError as error:
        manifest = refused_folder(prepared) / "manifest.csv"
        write_manifest(plan, manifest)
        raise ValueError(f"{error} What was found in every recording: {manifest}.") from error
