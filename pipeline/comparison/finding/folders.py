"""Models that lie in a folder: an export, an evaluation, or outputs that hold both."""

from pathlib import Path

from pipeline.comparison.finding.found import Found
from pipeline.conversion.staging import REJECTED, REPORT
from pipeline.provenance.identity import IDENTITY, TrainingIdentity, identity_path, read_identity
from pipeline.provenance.training import CONFIGURATION

TRAIN, EVALUATE, EXPORT = "train", "evaluate", "export"
# What makes a folder an evaluation, whether of this version or an earlier one.
METRICS = "metrics.json"
EVALUATION_FILES = (METRICS, "comparison.csv")
# What makes a folder an export.
EXPORT_FILES = ("config.json", "codec")


def find_folder(name: str) -> Found | None:
    """The model in the folder `name`; None where there is nothing of this name.

    Raises:
        ValueError: when there is something else; the message says what to name instead.
    """
    folder = Path(name)
    if not folder.exists():
        return None
    if (rejected := _rejected(folder)) is not None:
        raise ValueError(f"{name} was rejected when it was converted. {_see_report(rejected)}")
    if is_evaluation(folder):
        return found_in(name, _label(folder), folder, folder.parent / EXPORT)
    if is_export(folder):
        beside = folder.parent / EVALUATE
        # Another export, as one in FP8, is another model than the one that was evaluated.
        return found_in(name, _label(folder), beside if folder.name == EXPORT else None, folder)
    if is_evaluation(folder / EVALUATE) or is_export(folder / EXPORT):
        return found_in(name, _label(folder), folder / EVALUATE, folder / EXPORT)
    raise ValueError(f"{name} {_what_is_wrong(folder)}")


def found_in(name: str, label: str, evaluation: Path | None, export: Path) -> Found:
    """The model of an evaluation and an export beside each other, as far as they are there and belong together."""
    measured = evaluation if evaluation and is_evaluation(evaluation) else None
    converted = export if is_export(export) else None
    if measured and converted and _training(measured / IDENTITY) != _training(identity_path(converted)):
        # The folder that was named is the one that is meant.
        measured, converted = (measured, None) if Path(name).resolve() == measured.resolve() else (None, converted)
    training = _training(measured / IDENTITY if measured else identity_path(export))
    train = (measured or export).parent / TRAIN
    known = training is not None and _training(train / IDENTITY) == training
    return Found(name, label, measured, converted, train / CONFIGURATION if known else None)


def is_evaluation(folder: Path) -> bool:
    """Whether the stage evaluate has written this folder."""
    return all((folder / name).is_file() for name in EVALUATION_FILES)


def is_export(folder: Path) -> bool:
    """Whether the stage convert-checkpoint has written this folder, with a codec to speak through."""
    return all((folder / name).exists() for name in EXPORT_FILES)


def _training(path: Path) -> TrainingIdentity | None:
    """Which training a result says that it is from."""
    identity = read_identity(path)
    return identity.training if identity else None


def _rejected(folder: Path) -> Path | None:
    """The folder of a conversion that was rejected, where `folder` is this one or lies in it."""
    folder = folder.resolve()
    return next((one for one in (folder, *folder.parents) if one.suffix == REJECTED), None)


def _see_report(rejected: Path) -> str:
    """Where it stands why a conversion was rejected, and what to do then."""
    report = rejected / rejected.stem / REPORT
    return f"{report} says by which check; mend that, and convert again: python -m pipeline.convert_checkpoint"


def _label(folder: Path) -> str:
    """The shortest end of a path that tells it from its neighbours."""
    parts = [part for part in folder.resolve().parts if part not in (EVALUATE, EXPORT)]
    shown = [part for part in folder.parts if part not in (EVALUATE, EXPORT, "/", ".", "..")]
    return "/".join(shown[-3:]) or parts[-1]


def _what_is_wrong(folder: Path) -> str:
    """Why there is no model to compare in what exists, and what would help."""
    train = "python -m pipeline.convert_checkpoint"
    if folder.is_file():
        return f"is a file; convert it ({train} source={folder} target=…), and name the export."
    if (folder / "checkpoint.ckpt").exists() or (folder / "train" / "checkpoint.ckpt").exists():
        outputs = folder if (folder / "train").is_dir() else folder.parent
        if (rejected := outputs / f"{EXPORT}{REJECTED}").is_dir():
            return f"holds a training whose conversion was rejected. {_see_report(rejected)}"
        return f"holds a training that was not converted yet; run {train} paths.outputs={outputs}, and name {outputs}."
    if (folder / "multirun.yaml").exists() or any(folder.glob("*/train")):
        return "is the folder of a sweep; name one of its jobs, as in multirun/…/0."
    if (folder / "config.json").exists():
        return (
            "has no folder `codec`, and without it nobody hears what a model says; convert its checkpoint with "
            "layout=huggingface."
        )
    return "is neither an export, nor an evaluation, nor outputs that hold one of these; name one that is."
