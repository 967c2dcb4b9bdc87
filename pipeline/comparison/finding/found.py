"""What a name on the command line leads to, and where names are looked up."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.tracking.config import TrackingConfig


@dataclass(frozen=True)
class Places:
    """Where models are looked for.

    Attributes:
        outputs: the usual outputs.
        cache: where what is brought here from elsewhere is kept.
        repository: the repository's root.
        tracking: where runs are recorded.
    """

    outputs: Path
    cache: Path
    repository: Path
    tracking: TrackingConfig


@dataclass(frozen=True)
class Found:
    """A model by its name.

    Attributes:
        name: as it was typed.
        label: what it is called in tables and on pages.
        evaluation: the folder of its evaluation; None: it has none yet.
        export: the folder of its export; None: it is not at hand.
        trained_with: the file with the settings of its training; None: it is not at hand.
        remedy: how a missing evaluation is made where no export is at hand.
    """

    name: str
    label: str
    evaluation: Path | None = None
    export: Path | None = None
    trained_with: Path | None = None
    remedy: str = ""
