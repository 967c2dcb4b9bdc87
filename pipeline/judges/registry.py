"""Which judges there are, and who of them is here. Light: needs no torch, and imports a judge only to call it in.

To add one, write its class beside the others and name it in `JUDGES`.
"""

import importlib
import importlib.util
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

if typing.TYPE_CHECKING:
    from pipeline.judges.judge import Judge

NOT_ASKED_FOR = "not asked for"
REMEDY = "make judges installs it"


@dataclass(frozen=True)
class Options:
    """What judges are told when they are called in.

    Attributes:
        device: where those compute that are torch modules.
        recogniser: the recogniser's folder, in place of the one that a package holds.
    """

    device: str = "cpu"
    recogniser: str | None = None


@dataclass(frozen=True)
class Entry:
    """Where a judge is found: its module and class here, and the modules that it needs."""

    module: str
    judge: str
    needs: tuple[str, ...]


JUDGES: Mapping[str, Entry] = {
    "whisper": Entry("pipeline.judges.whisper", "Whisper", ("faster_whisper", "jiwer")),
    "speaker": Entry("pipeline.judges.speaker", "SpeakerEncoder", ("resemblyzer",)),
    "dnsmos": Entry("pipeline.judges.dnsmos", "Dnsmos", ("speechmos", "onnxruntime", "librosa")),
    "distillmos": Entry("pipeline.judges.distillmos", "DistillMos", ("distillmos",)),
}


@dataclass(frozen=True)
class Panel:
    """The judges that came, and of those that did not, why; both by name."""

    judges: Mapping[str, "Judge"] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)


def check_presence(names: Iterable[str]) -> None:
    """Make sure that the judges of these names can be called in, before anything else is done.

    Raises:
        ValueError: what one needs is not here.
    """
    for name in names:
        if absent := _absent(JUDGES[name]):
            raise ValueError(f"The judge {name} needs {absent}, which is not installed; {REMEDY}.")


def call_in_installed(options: Options) -> Panel:
    """Every judge whose packages are here and work."""
    judges, skipped = {}, {}
    for name, entry in JUDGES.items():
        if absent := _absent(entry):
            skipped[name] = f"{absent} is not installed; {REMEDY}."
            continue
        try:
            judges[name] = _load(entry, options)
        except Exception as error:  # whatever a package of somebody else raises: the other judges go on
            skipped[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Panel(judges, skipped)


def call_in(names: tuple[str, ...], options: Options) -> Panel:
    """The judges of these names.

    Raises:
        ValueError: the packages of one are not here, or do not work.
    """
    check_presence(names)
    judges = {}
    for name in names:
        try:
            judges[name] = _load(JUDGES[name], options)
        except Exception as error:  # as above; who asked for it by name is told
            raise ValueError(f"The judge {name} cannot be called in ({' '.join(str(error).split())}).") from error
    return Panel(judges, {name: NOT_ASKED_FOR for name in JUDGES if name not in names})


def _absent(entry: Entry) -> str:
    """The first module that a judge needs and that is not here."""
    return next((module for module in entry.needs if importlib.util.find_spec(module) is None), "")


def _load(entry: Entry, options: Options) -> "Judge":
    judge: Judge = getattr(importlib.import_module(entry.module), entry.judge)(options)
    return judge
